"""The engine with a model of our own making, whose every run the test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest

from fingerpost.registry import BrokenImage, ModelFailed, Overloaded
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine import Engine
from fingerpost.worker.images import ImageLimits
from fingerpost.worker.metrics import WorkerMetrics
from tests.worker.colours import encoded


class GatedBackend:
    """Scores are the mean of each channel; each run waits for the gate; dark images raise."""

    framework = device = "test"
    input = ImageInput(height=4, width=4, channels=3)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.sizes: list[int] = []

    def predict(self, images: Sequence[np.ndarray]) -> np.ndarray:
        self.sizes.append(len(images))
        self.started.release()
        assert self.gate.wait(20)
        means = np.stack([image.mean(axis=(0, 1)) for image in images])
        if means.max(axis=1).min() < 1:
            raise RuntimeError("this one is poison")
        return means.astype(np.float32)


@pytest.fixture
def backend() -> GatedBackend:
    return GatedBackend()


@pytest.fixture
async def engine(backend: GatedBackend) -> AsyncIterator[Engine]:
    engine = Engine(
        backend,
        limits=ImageLimits(),
        max_batch=16,
        max_queue=20,
        decode_threads=2,
        metrics=WorkerMetrics(),
    )
    yield engine
    backend.gate.set()
    await engine.aclose()


async def running(backend: GatedBackend) -> None:
    await asyncio.to_thread(backend.started.acquire)


async def queued(engine: Engine, count: int) -> None:
    async with asyncio.timeout(20):
        while engine.queued < count:
            await asyncio.sleep(0.001)


async def test_what_arrives_during_a_run_makes_one_batch(
    engine: Engine, backend: GatedBackend
) -> None:
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    rest = [asyncio.create_task(engine.classify(encoded("blue"))) for _ in range(5)]
    await queued(engine, 5)
    assert engine.running_s() > 0
    backend.gate.set()
    outcomes = await asyncio.gather(first, *rest)
    assert backend.sizes == [1, 5]
    assert [outcome.scores.argmax() for outcome in outcomes] == [0, 2, 2, 2, 2, 2]
    assert all(outcome.timings.queue >= 0 for outcome in outcomes)
    assert engine.queued_cost == 0
    assert engine.latency_per_cost_s > 0


async def test_one_bad_image_among_fifteen_good_ones(engine: Engine, backend: GatedBackend) -> None:
    poison = encoded("black")
    good = [encoded("green", (8 + n, 8)) for n in range(13)]
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    tasks = [asyncio.create_task(engine.classify(data)) for data in (*good, poison)]
    broken = asyncio.create_task(engine.classify(encoded("blue")[:60]))
    with pytest.raises(BrokenImage):
        await broken
    await queued(engine, 14)
    backend.gate.set()
    outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert [type(each).__name__ for each in outcomes] == ["Outcome"] * 14 + ["ModelFailed"]
    failure = outcomes[-1]
    assert isinstance(failure, ModelFailed)
    assert "this one is poison" in failure.message


async def test_a_full_queue_refuses_at_once(engine: Engine, backend: GatedBackend) -> None:
    tasks = [asyncio.create_task(engine.classify(encoded("red")))]
    await running(backend)
    tasks += [asyncio.create_task(engine.classify(encoded("red"))) for _ in range(20)]
    await queued(engine, 20)
    with pytest.raises(Overloaded):
        await engine.classify(encoded("red"))
    backend.gate.set()
    assert len(await asyncio.gather(*tasks)) == 21


async def test_a_cancelled_image_never_reaches_the_model(
    engine: Engine, backend: GatedBackend
) -> None:
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    second, third = (asyncio.create_task(engine.classify(encoded("red"))) for _ in range(2))
    await queued(engine, 2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    backend.gate.set()
    await asyncio.gather(first, third)
    assert backend.sizes == [1, 1]


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


async def test_closing_cancels_what_waits(engine: Engine, backend: GatedBackend) -> None:
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    second = asyncio.create_task(engine.classify(encoded("red")))
    await queued(engine, 1)
    closing = asyncio.create_task(engine.aclose())
    await asyncio.gather(second, return_exceptions=True)
    assert second.cancelled()
    backend.gate.set()
    await closing
    assert (await first).scores.argmax() == 0
