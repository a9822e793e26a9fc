"""Cancelled images, and the end of an engine."""

from __future__ import annotations

import asyncio
import threading

import pytest

from fingerpost.errors import (
    Draining,
)
from fingerpost.worker.engine.engine import Engine
from tests.support.colours import encoded
from tests.support.engines import (
    GatedBackend,
    engine_of,
    ready,
    running,
)
from tests.support.waiting import until


async def test_a_cancelled_image_never_reaches_the_model(
    engine: Engine, backend: GatedBackend
) -> None:
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    second, third = (asyncio.create_task(engine.classify(encoded("red"))) for _ in range(2))
    await ready(engine, 2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert engine.queued == 1
    backend.gate.set()
    await asyncio.gather(first, third)
    assert backend.sizes == [1, 1]


async def test_cancelling_at_any_moment_leaves_nothing_behind(
    engine: Engine, backend: GatedBackend
) -> None:
    backend.gate.set()
    for turns in range(30):
        tasks = [asyncio.create_task(engine.classify(encoded("red"))) for _ in range(4)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await until(lambda: not engine.queued and not engine.running_s())
    assert engine.queued_cost == 0
    assert (await engine.classify(encoded("green"))).scores.argmax() == 1


async def test_the_event_loop_goes_on_while_the_model_runs(
    engine: Engine, backend: GatedBackend
) -> None:
    task = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    for _ in range(100):
        await asyncio.sleep(0)  # the loop turns; a blocked one would never get here
    assert not task.done()
    backend.gate.set()
    await task


async def test_closing_cancels_what_waits_and_lets_the_run_end(backend: GatedBackend) -> None:
    async with engine_of(backend) as engine:
        first = asyncio.create_task(engine.classify(encoded("red")))
        await running(backend)
        second = asyncio.create_task(engine.classify(encoded("red")))
        await ready(engine, 1)
        closing = asyncio.create_task(engine.aclose())
        await asyncio.gather(second, return_exceptions=True)
        assert second.cancelled()
        with pytest.raises(Draining):
            await engine.classify(encoded("red"))
        assert not closing.done()
        backend.gate.set()
        await closing
        assert (await first).scores.argmax() == 0
    assert {backend.closed_in} == backend.threads  # closed where it ran


async def test_closing_leaves_no_thread(backend: GatedBackend) -> None:
    before = set(threading.enumerate())
    backend.gate.set()
    async with engine_of(backend) as engine:
        await engine.classify(encoded("red"))
        assert {t.name for t in set(threading.enumerate()) - before} >= {"model", "decode_0"}
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert not names & {"model", "decode_0"}


async def test_an_engine_that_was_never_used_closes_its_backend(backend: GatedBackend) -> None:
    async with engine_of(backend):
        pass
    assert backend.closed_in
