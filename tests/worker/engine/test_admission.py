"""Images that the engine refuses, and deadlines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fingerpost.errors import (
    DeadlineExceeded,
    Overloaded,
)
from fingerpost.worker.engine.engine import Engine
from tests.support.colours import encoded
from tests.support.engines import (
    GatedBackend,
    Plain,
    engine_of,
    means,
    pixels,
    running,
)
from tests.support.waiting import until


async def test_a_full_queue_refuses_at_once(engine: Engine, backend: GatedBackend) -> None:
    tasks = [asyncio.create_task(engine.classify(encoded("red")))]
    await running(backend)
    tasks += [asyncio.create_task(engine.classify(encoded("red"))) for _ in range(20)]
    await until(lambda: engine.queued == 20)
    with pytest.raises(Overloaded):
        await engine.classify(encoded("red"))
    with pytest.raises(Overloaded):
        engine.admit(600)
    backend.gate.set()
    assert len(await asyncio.gather(*tasks)) == 21
    engine.admit(600)


async def test_images_that_wait_for_a_decoder_count_in_the_queue(backend: GatedBackend) -> None:
    """A decoder at work elsewhere: no more than `decode_threads` go to the pool at once."""
    free = threading.Event()
    backend.gate.set()
    with ThreadPoolExecutor(1) as decoders:
        decoders.submit(free.wait, 20)
        async with engine_of(backend, decoders=decoders, decode_threads=3) as engine:
            tasks = [asyncio.create_task(engine.classify(encoded("red"))) for _ in range(20)]
            await until(lambda: engine.queued == 20)
            assert engine.ready == 0
            assert decoders._work_queue.qsize() == 3
            with pytest.raises(Overloaded, match="20 images wait"):
                await engine.classify(encoded("red"))
            for task in tasks[:15]:
                task.cancel()
            await asyncio.gather(*tasks[:15], return_exceptions=True)
            assert engine.queued == 5 + 3  # these were handed over already
            free.set()
            assert len(await asyncio.gather(*tasks[15:])) == 5
            assert (engine.queued, engine.queued_cost) == (0, 0)
        assert decoders.submit(int).result() == 0  # a shared pool stays open


async def test_a_deadline_that_passes_in_the_queue_is_told_before_the_run(
    engine: Engine, backend: GatedBackend
) -> None:
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(engine.infer(pixels()))
    await running(backend)
    soon = loop.time() + 0.01
    late = asyncio.create_task(engine.infer(pixels(), deadline=soon))
    in_time = asyncio.create_task(engine.infer(pixels(), deadline=loop.time() + 60))
    await until(lambda: engine.ready == 2 and loop.time() > soon)
    backend.gate.set()
    with pytest.raises(DeadlineExceeded, match="was not run"):
        await late
    await asyncio.gather(first, in_time)
    assert backend.sizes == [1, 1]


async def test_what_cannot_be_in_time_is_refused_by_the_headers() -> None:
    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        threading.Event().wait(0.02)  # a model of 20 ms
        return means(images)

    async with engine_of(Plain(predict)) as engine:
        engine.admit(0.001)  # nothing is known yet
        for _ in range(4):
            await engine.infer(pixels())
        with pytest.raises(DeadlineExceeded, match="only 0.01 s are left"):
            engine.admit(0.01)
        with pytest.raises(DeadlineExceeded):
            await engine.infer(pixels(), deadline=asyncio.get_running_loop().time() + 0.01)
        engine.admit(10)
