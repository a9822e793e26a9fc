"""The watch of a service over scripted polls: doubt, listeners, stored snapshots, sharing."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from tests.support.optional import not_none
from tests.support.waiting import until

from fingerpost.errors import RegistryError, RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo, Snapshot, WatchConfig
from fingerpost.registry.watching.self_preservation import ProbeResult, SelfPreservationConfig
from fingerpost.registry.watching.service_watch import ServiceWatch
from fingerpost.registry.watching.shared import SharedWatches
from fingerpost.registry.watching.snapshot_store import SnapshotStore

QUICK = SelfPreservationConfig(probe_interval_s=0.02, max_probes_per_s=1000.0, probe_timeout_s=0.3)
FAST = WatchConfig(
    wait_s=60.0, backoff_base_s=0.001, backoff_cap_s=0.001, burst=1000, self_preservation=QUICK
)
MODELS = (ModelInfo(name="flowers", versions=("1",)),)


@pytest.fixture(autouse=True)
async def _limit():
    async with asyncio.timeout(30):
        yield


def instance(name, port=None, boot_id=0):
    return Instance(
        id=name,
        service="flowers",
        host="127.0.0.1",
        ports={"http": port or 8000 + ord(name)},
        models=MODELS,
        boot_id=boot_id,
    )


class Script:
    """Answers polls in turn: (index, healthy, withdrawn) or an error; then it holds."""

    def __init__(self, *steps):
        self.steps = list(steps)
        self.more = asyncio.Event()
        self.polls = 0

    async def __call__(self, index, wait_s):
        self.polls += 1
        while not self.steps:
            self.more.clear()
            await self.more.wait()
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        index, names, *withdrawn = step
        snapshot = Snapshot(
            service="flowers",
            instances=tuple(instance(name) for name in names),
            known=bool(names),
            index=index,
            taken_at=float(self.polls),
            withdrawn=tuple(*withdrawn),
        )
        return snapshot, index

    def add(self, *steps):
        self.steps += steps
        self.more.set()


class Workers:
    """What each worker says when asked; those not in it hang."""

    def __init__(self, **words):
        self.words = words
        self.asked = []
        self.more = asyncio.Event()

    async def __call__(self, instance):
        self.asked.append(instance.id)
        while instance.id not in self.words:
            self.more.clear()
            await self.more.wait()
        word = self.words[instance.id]
        if isinstance(word, Exception):
            raise word
        return word

    def say(self, **words):
        self.words |= words
        self.more.set()


@contextlib.asynccontextmanager
async def watching(script, workers=None, config=FAST, store=None):
    watch = ServiceWatch(
        script,
        service="flowers",
        name="test",
        probe=workers,
        store=store,
        config=config,
        rng=random.Random(7),
    ).start()
    try:
        yield watch
    finally:
        await watch.aclose()


def ids(watch):
    return "".join(each.id for each in watch.view.instances) if watch.view else None


# Doubt


async def test_a_list_that_turns_empty_is_not_believed_before_the_workers_were_asked():
    workers = Workers()
    script = Script((5, "abc"), (6, ""))
    async with watching(script, workers) as watch:
        await until(lambda: sorted(workers.asked) == ["a", "b", "c"])
        assert ids(watch) == "abc"
        assert not_none(watch.view).retained
        assert not_none(watch.view).known
        workers.say(a=ProbeResult.READY, b=ProbeResult.GONE)
        await until(lambda: ids(watch) == "ac")
        assert not_none(watch.view).retained == ("a", "c"), "c has not answered yet"
        workers.say(c=ProbeResult.UNRESPONSIVE)
        await until(lambda: ids(watch) == "a")
        assert (watch.suspicions, watch.errors) == (1, 0)
        assert watch.probes == len(workers.asked)


async def test_what_is_dropped_between_two_polls_wakes_readers_and_the_index_grows():
    workers = Workers()
    script = Script((5, "ab"), (6, ""))
    async with watching(script, workers) as watch:
        seen = []
        async for view in watch:
            seen.append((view.index, "".join(each.id for each in view.instances)))
            if len(seen) == 1:
                await until(lambda: len(workers.asked) == 2)
                workers.say(a=ProbeResult.GONE, b=ProbeResult.READY)
            elif len(seen) == 2:
                script.add((6, "c"))
            elif len(seen) == 3:
                break
        assert [names for _, names in seen] == ["ab", "b", "bc"]
        indexes = [index for index, _ in seen]
        assert indexes == sorted(set(indexes))


async def test_a_word_of_the_registry_applies_at_once():
    workers = Workers()
    script = Script((5, "ab"), (6, "", "ab"))
    async with watching(script, workers) as watch:
        await until(lambda: ids(watch) == "")
        assert workers.asked == []
        assert not not_none(watch.view).known


async def test_a_retained_worker_that_dies_is_dropped_and_its_return_ends_the_doubt():
    workers = Workers(a=ProbeResult.READY, b=ProbeResult.READY)
    script = Script((5, "ab"), (6, ""))
    async with watching(script, workers) as watch:
        await until(lambda: workers.asked.count("a") >= 3)
        assert ids(watch) == "ab"
        workers.say(b=ProbeResult.GONE)
        await until(lambda: ids(watch) == "a")
        script.add((7, "a"))
        await until(lambda: not not_none(watch.view).retained)
        asked = len(workers.asked)
        script.add((8, "ac"))
        await until(lambda: ids(watch) == "ac")
        assert len(workers.asked) <= asked + 1, "nobody is in doubt any more"


async def test_doubt_goes_on_while_the_registry_fails():
    workers = Workers(a=ProbeResult.READY, b=ProbeResult.READY)
    script = Script((5, "ab"), (6, ""), RegistryError("no leader"))
    async with watching(script, workers) as watch:
        await until(lambda: watch.errors == 1 and len(workers.asked) >= 4)
        workers.say(a=ProbeResult.GONE)
        await until(lambda: ids(watch) == "b")
        assert str(watch.error) == str(watch.last_error) == "no leader"


async def test_the_list_of_a_registry_that_was_away_is_not_believed_at_once():
    workers = Workers(a=ProbeResult.READY, b=ProbeResult.READY, c=ProbeResult.READY)
    script = Script((5, "abc"), RegistryError("agent killed"), (6, "abc"), (7, "ab"))
    async with watching(script, workers) as watch:
        seen = []
        watch.listen(lambda _, view: seen.append("".join(each.id for each in view.instances)))
        await until(lambda: watch.suspicions == 1 and "c" in workers.asked)
        assert set(seen) == {"abc"}
        workers.say(c=ProbeResult.GONE)
        await until(lambda: ids(watch) == "ab")


async def test_a_bug_in_asking_counts_as_silence(caplog):
    workers = Workers(a=ZeroDivisionError("bug"), b=ProbeResult.READY)
    async with watching(Script((5, "ab"), (6, "")), workers) as watch:
        await until(lambda: ids(watch) == "b")
    assert "bug" in caplog.text


async def test_a_watch_without_means_to_ask_believes_every_list():
    async with watching(Script((5, "ab"), (6, ""))) as watch:
        await until(lambda: ids(watch) == "")


async def test_doubt_can_be_switched_off():
    workers = Workers()
    config = WatchConfig(wait_s=60.0, self_preservation=None)
    async with watching(Script((5, "ab"), (6, "")), workers, config) as watch:
        await until(lambda: ids(watch) == "")
        assert workers.asked == []


async def test_closing_ends_the_questions_and_starting_asks_again():
    workers = Workers()
    watch = ServiceWatch(
        Script((5, "ab"), (6, "")), service="flowers", name="test", probe=workers, config=FAST
    )
    watch.start()
    await until(lambda: len(workers.asked) == 2)
    await watch.aclose()
    assert ids(watch) == "ab"
    watch.start()
    workers.say(a=ProbeResult.GONE, b=ProbeResult.GONE)
    await until(lambda: ids(watch) == "")
    await watch.aclose()
    await watch.aclose()


async def test_a_suspicion_ends_at_its_limit(caplog):
    caplog.set_level("INFO")
    short = SelfPreservationConfig(probe_interval_s=0.02, max_duration_s=0.1)
    workers = Workers(a=ProbeResult.READY)
    config = WatchConfig(wait_s=60.0, self_preservation=short)
    async with watching(Script((5, "a"), (6, "")), workers, config) as watch:
        await until(lambda: ids(watch) == "")
        await until(lambda: "believed again" in caplog.text)
        assert workers.asked


# Listeners


async def test_a_listener_hears_of_every_change_and_its_failure_is_logged(caplog):
    script = Script((5, "a"))
    heard = []

    def fail(old: object, new: object) -> None:
        raise ZeroDivisionError

    async with watching(script) as watch:
        end = watch.listen(lambda old, new: heard.append((old and old.index, new.index)))
        watch.listen(fail)
        await watch.ready(5)
        script.add((6, "a"), (7, "ab"))
        await until(lambda: len(heard) == 2)
        end()
        end()
        script.add((8, "b"))
        await until(lambda: ids(watch) == "b")
    assert heard == [(None, 5), (5, 7)]
    assert "a listener failed" in caplog.text


# Stored snapshots


async def stored(folder, names="ab"):
    store = SnapshotStore(folder, clock=lambda: 0.0)
    instances = tuple(instance(name) for name in names)
    snapshot = Snapshot(service="flowers", instances=instances, known=True, index=9, taken_at=-60.0)
    store.put(snapshot)
    await store.aclose()


async def test_it_starts_from_disk_when_the_registry_cannot_be_reached(tmp_path):
    await stored(tmp_path)
    store = SnapshotStore(tmp_path)
    script = Script(RegistryUnreachable("nobody there"))
    workers = Workers(b=ProbeResult.GONE)
    async with watching(script, workers, store=store) as watch:
        view = await watch.ready(5)
        assert ids(watch) == "ab"
        assert view.from_disk
        assert view.age_s(asyncio.get_running_loop().time()) >= 60
        assert watch.error is not None
        script.add((3, "ac"))
        await until(lambda: ids(watch) == "ac")
        assert not not_none(watch.view).from_disk
        assert not_none(watch.view).index > view.index
    await store.aclose()
    assert [each.id for each in not_none(await store.load("flowers")).instances] == ["a", "c"]


async def test_it_starts_from_disk_when_the_registry_hangs(tmp_path):
    await stored(tmp_path)
    config = WatchConfig(wait_s=60.0, stored_after_s=0.01)
    async with watching(Script(), config=config, store=SnapshotStore(tmp_path)) as watch:
        assert (await watch.ready(5)).from_disk
        assert watch.errors == 0


async def test_disk_does_not_get_in_the_way_of_a_registry_that_answers(tmp_path):
    await stored(tmp_path)
    store = SnapshotStore(tmp_path)
    script = Script((3, "c"), RegistryError("down"))
    async with watching(script, store=store) as watch:
        await until(lambda: watch.errors == 1)
        assert ids(watch) == "c"
        assert watch.changes == 1
    await store.aclose()


async def test_an_empty_disk_changes_nothing(tmp_path):
    script = Script(*[RegistryUnreachable("nobody there")] * 1000)
    async with watching(script, store=SnapshotStore(tmp_path)) as watch:
        with pytest.raises(RegistryUnreachable, match="nobody there"):
            await watch.ready(0.05)


async def test_a_registry_back_without_memory_does_not_undo_what_the_disk_knew(tmp_path):
    await stored(tmp_path)
    workers = Workers(a=ProbeResult.READY, b=ProbeResult.GONE)
    script = Script(RegistryUnreachable("nobody there"))
    store = SnapshotStore(tmp_path)
    async with watching(script, workers, store=store) as watch:
        assert (await watch.ready(5)).from_disk
        script.add((1, ""))
        await until(lambda: ids(watch) == "a")
        assert not_none(watch.view).retained == ("a",)
        assert not not_none(watch.view).from_disk
    await store.aclose()


# Sharing


async def test_released_and_closed_watches_do_not_count_against_the_limit():
    def make(service):
        return ServiceWatch(Script(), service=service, name=service, config=FAST)

    shared = SharedWatches(make, limit=2)
    first = shared.watch("a")
    shared.watch("b")
    with pytest.raises(RegistryError, match="2 services are being watched"):
        shared.watch("c")
    await shared.release("a")
    assert not first.running
    third = shared.watch("c")
    await third.aclose()
    shared.watch("d")
    await shared.aclose()
