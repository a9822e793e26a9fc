"""The watch's shell over scripted polls: no sockets, and no waiting for time."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import pytest
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.registry import Catalog, Watch, WatchConfig

FAST = WatchConfig(wait_s=60.0, backoff_base_s=0.001, backoff_cap_s=0.001, burst=1000)


class Script:
    """Answers polls in turn: a list of names, or an error; then it holds, as a registry does."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.polls = []
        self.more = asyncio.Event()

    async def __call__(self, index, wait_s):
        self.polls.append(index)
        while not self.steps:
            self.more.clear()
            await self.more.wait()
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        index, services = step
        return Catalog(services=services, index=index, taken_at=float(len(self.polls))), index

    def add(self, *steps):
        self.steps += steps
        self.more.set()


@contextlib.asynccontextmanager
async def watching(script, config=FAST) -> AsyncIterator[Watch[Catalog]]:
    watch = Watch(script, name="test", config=config, rng=random.Random(7)).start()
    try:
        yield watch
    finally:
        await watch.aclose()


@pytest.fixture(autouse=True)
async def _limit():
    async with asyncio.timeout(20):
        yield


async def test_each_change_is_published_once():
    script = Script((5, ("a",)), (6, ("a",)), (7, ("a", "b")))
    async with watching(script) as watch:
        seen = []
        async for view in watch:
            seen.append((view.index, view.services))
            if len(seen) == 2:
                break
        assert seen == [(5, ("a",)), (7, ("a", "b"))] or seen[-1] == (7, ("a", "b"))
        assert watch.changes == 2


async def test_the_same_content_only_renews_the_age():
    script = Script((5, ("a",)), (6, ("a",)))
    async with watching(script) as watch:
        await until(lambda: watch.view is not None and watch.view.taken_at == 2.0)
        assert (not_none(watch.view).index, watch.changes) == (5, 1)


async def test_an_error_keeps_the_view_and_resets_the_index():
    script = Script((5, ("a",)), RegistryError("gone"))
    async with watching(script) as watch:
        await until(lambda: len(script.polls) == 3)
        assert not_none(watch.view).services == ("a",)
        assert str(watch.error) == "gone"
        assert script.polls == [0, 5, 0]
        script.add((6, ("a",)))
        await until(lambda: watch.error is None)
        assert watch.errors == 1


async def test_a_registry_that_lost_its_memory_is_asked_afresh():
    script = Script((9, ("a",)), (3, ("b",)))
    async with watching(script) as watch:
        await until(lambda: len(script.polls) == 3)
        assert script.polls == [0, 9, 0]
        assert not_none(watch.view).services == ("b",)


async def test_other_content_at_the_same_index_is_a_change():
    script = Script((9, ("a",)))
    async with watching(script) as watch:
        first = await watch.ready(5)
        script.add((9, ("b",)))
        second = await watch.changed(first.index)
        assert second.services == ("b",)


async def test_ready_raises_the_polls_own_error():
    async with watching(Script(*[RegistryError("no leader")] * 1000)) as watch:
        with pytest.raises(RegistryError, match="no leader"):
            await watch.ready(0.05)


async def test_ready_without_any_answer_is_unreachable():
    async with watching(Script()) as watch:
        with pytest.raises(RegistryUnreachable, match="test"):
            await watch.ready(0.01)


async def test_a_poll_that_never_ends_is_given_up():
    class Short(WatchConfig):
        @property
        def deadline_s(self) -> float:
            return 0.01

    async with watching(Script(), Short(backoff_cap_s=0.001)) as watch:
        await until(lambda: watch.errors >= 2)
        assert isinstance(watch.error, RegistryUnreachable)


async def test_a_bug_in_a_poll_does_not_end_the_watch():
    script = Script(ZeroDivisionError("bug"), (5, ("a",)))
    async with watching(script) as watch:
        assert (await watch.ready(5)).services == ("a",)
        assert watch.errors == 1


async def test_a_cancelled_reader_leaves_the_watch_running():
    script = Script((5, ("a",)))
    async with watching(script) as watch:
        await watch.ready(5)
        reader = asyncio.create_task(watch.changed(5))
        await asyncio.sleep(0)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        script.add((6, ("b",)))
        assert (await watch.changed(5)).services == ("b",)


async def test_it_can_be_closed_twice_and_started_again():
    script = Script((5, ("a",)))
    watch = Watch(script, name="test", config=FAST)
    await watch.aclose()
    watch.start()
    assert watch.start() is watch
    await watch.ready(5)
    await watch.aclose()
    await watch.aclose()
    assert not_none(watch.view).services == ("a",)
    script.add((6, ("b",)))
    watch.start()
    assert (await watch.changed(5)).services == ("b",)
    await watch.aclose()
