"""The engine's own time for an image: `classify` with a model that does nothing.

`python -m benchmarks.worker.engine_shell [--seconds 2] [--rounds 5]`

Sixteen callers, like sixteen connections, wait either for the engine, or for a bare future that the
loop's next turn resolves. The difference is the engine's: submission, batching, the way to the
model's thread and back, metrics. Goal: under 60 us an image.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.telemetry.metrics import WorkerMetrics

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Item

CALLERS = 16
BODY = bytes(20_000)
GOAL_US = 60.0


class Nothing:
    """A model that takes encoded images without a look, and gives all of them the same scores."""

    framework = device = "none"
    input = ImageInput(encoded=True, check_encoded=False)

    def predict(self, images: Sequence[Item]) -> NDArray[np.float32]:
        return np.ones((len(images), 10), np.float32)

    def close(self) -> None:
        pass


async def per_call_us(ask: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Microseconds a call, with sixteen callers that call again as soon as they have an answer."""
    calls = 0
    end = time.monotonic() + seconds

    async def caller() -> None:
        nonlocal calls
        while time.monotonic() < end:
            await ask()
            calls += 1

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return (time.monotonic() - began) / calls * 1e6


async def measure(seconds: float, rounds: int) -> None:
    engine = Engine(
        Nothing(), images=ImageConfig(), metrics=WorkerMetrics(), batching=BatchingConfig()
    )
    engine.warm_up()
    loop = asyncio.get_running_loop()

    async def bare() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    async def classify() -> object:
        return await engine.classify(BODY, deadline=time.monotonic() + 60)

    times = [
        (await per_call_us(bare, seconds), await per_call_us(classify, seconds))
        for _ in range(rounds)
    ]
    await engine.aclose()
    bare_us, engine_us = (statistics.median(each) for each in zip(*times, strict=True))
    own_us = engine_us - bare_us
    print(f"bare future    {bare_us:6.1f} us an image")
    print(f"engine         {engine_us:6.1f} us an image")
    verdict = "met" if own_us < GOAL_US else "missed"
    print(f"the engine's own {own_us:.1f} us: the goal of {GOAL_US:g} us is {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    asyncio.run(measure(options.seconds, options.rounds))


if __name__ == "__main__":
    main()
