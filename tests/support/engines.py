"""Engines around models of our own making, whose every run a test controls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.engine.outcome import Outcome
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from tests.support.colours import RGB
from tests.support.waiting import until

__all__ = ["GatedBackend", "Plain", "engine_of", "means", "pixels", "ready", "running", "scores"]


class GatedBackend:
    """Scores are the mean of each channel; each run waits for the gate; dark images raise."""

    framework = platform = device = "test"
    input = ImageInput(height=4, width=4, channels=3)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.started = threading.Semaphore(0)
        self.sizes: list[int] = []
        self.threads: set[int] = set()
        self.closed_in = 0

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        self.sizes.append(len(images))
        self.threads.add(threading.get_native_id())
        self.started.release()
        assert self.gate.wait(20)
        means = np.stack([image.mean(axis=(0, 1)) for image in images])
        if means.max(axis=1).min() < 1:
            raise RuntimeError("this one is poison")
        return means.astype(np.float32)

    def close(self) -> None:
        self.closed_in = threading.get_native_id()


class Plain:
    """A model that is a function."""

    framework = platform = device = "test"

    def __init__(self, function: Callable, wanted: ImageInput = GatedBackend.input) -> None:
        self.input = wanted
        self.predict = function

    def close(self) -> None:
        pass


@asynccontextmanager
async def engine_of(backend, **options) -> AsyncIterator[Engine]:
    engine = Engine(
        backend,
        images=ImageConfig(max_side=100),
        metrics=WorkerMetrics(),
        decode_threads=options.pop("decode_threads", 2),
        decoders=options.pop("decoders", None),
        batching=BatchingConfig(**{"max_batch": 16, "max_queue": 20, **options}),
    )
    try:
        yield engine
    finally:
        await engine.aclose()


async def running(backend: GatedBackend) -> None:
    await asyncio.to_thread(backend.started.acquire)


async def ready(engine: Engine, count: int) -> None:
    await until(lambda: engine.ready >= count)


def pixels(colour: str = "red", side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), RGB[colour], np.uint8)


def means(images: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)


def scores(outcome: Outcome | BaseException) -> np.ndarray:
    assert isinstance(outcome, Outcome)
    return outcome.scores
