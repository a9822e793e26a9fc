"""The engine with models of our own making, whose every run the test controls."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from fingerpost.errors import (
    BrokenImage,
    ConfigurationError,
    EmptyImage,
    InvalidRequest,
    ModelFailed,
)
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.models.manifest import Layout
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.threads import NICE
from tests.support.colours import encoded
from tests.support.engines import (
    GatedBackend,
    Plain,
    engine_of,
    means,
    pixels,
    ready,
    running,
    scores,
)

# Batches.


@pytest.mark.parametrize("at_once", [1, 8])
async def test_the_latency_told_is_the_models_and_not_the_queues(at_once: int) -> None:
    """20 ms an image, one at a time; of eight at once the last waits for 160 ms. From the first."""

    def slow(images: Sequence[np.ndarray]) -> np.ndarray:
        time.sleep(0.02)
        return means(images)

    async with engine_of(Plain(slow), max_batch=1) as engine:
        assert engine.latency_per_cost_s == 0
        image = pixels()
        for _ in range(2):
            await asyncio.gather(*(engine.infer(image) for _ in range(at_once)))
            assert 0.01 < engine.latency_per_cost_s * image.nbytes / 1e6 < 0.05


async def test_what_arrives_during_a_run_makes_one_batch(
    engine: Engine, backend: GatedBackend
) -> None:
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    rest = [asyncio.create_task(engine.classify(encoded("blue"))) for _ in range(5)]
    await ready(engine, 5)
    assert engine.queued == 5
    assert engine.queued_cost == pytest.approx(5 * len(encoded("blue")) / 1e6)
    assert engine.running_s() > 0
    backend.gate.set()
    outcomes = await asyncio.gather(first, *rest)
    assert backend.sizes == [1, 5]
    assert [outcome.scores.argmax() for outcome in outcomes] == [0, 2, 2, 2, 2, 2]
    assert all(outcome.timings.queue >= 0 for outcome in outcomes)
    assert (engine.queued_cost, engine.running_s()) == (0, 0)
    assert engine.latency_per_cost_s > 0


async def test_what_arrives_in_one_turn_of_the_loop_makes_one_batch(
    engine: Engine, backend: GatedBackend
) -> None:
    backend.gate.set()
    await asyncio.gather(*(engine.infer(pixels()) for _ in range(16)))
    assert backend.sizes == [16]


async def test_batches_are_padded_to_allowed_sizes() -> None:
    sizes = []

    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        sizes.append(len(images))
        return means(images)

    async with engine_of(Plain(predict), max_batch=8, sizes=(2, 8)) as engine:
        outcomes = await asyncio.gather(*(engine.infer(pixels("green")) for _ in range(11)))
    assert [outcome.scores.argmax() for outcome in outcomes] == [1] * 11
    assert sizes == [8, 8]


async def test_a_backend_with_a_fixed_batch_gets_just_that() -> None:
    sizes = []

    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        sizes.append(len(images))
        return means(images)

    fixed = Plain(predict, ImageInput(height=4, width=4, batch=4))
    async with engine_of(fixed) as engine:
        assert await asyncio.to_thread(engine.warm_up) == 3
        await asyncio.gather(*(engine.infer(pixels()) for _ in range(6)))
    assert sizes == [4] * 5  # three of the warm-up


async def test_an_image_waits_for_company_as_long_as_it_is_told(backend: GatedBackend) -> None:
    backend.gate.set()
    async with engine_of(backend, max_batch=3, max_wait_s=20) as engine:
        first = asyncio.create_task(engine.infer(pixels()))
        await ready(engine, 1)
        assert backend.sizes == []
        await asyncio.gather(first, engine.infer(pixels()), engine.infer(pixels()))
        assert backend.sizes == [3]
    async with engine_of(backend, max_batch=3, max_wait_s=0.02) as engine:
        await engine.infer(pixels())
        assert backend.sizes == [3, 1]


# One fails alone.


async def test_one_bad_image_among_fifteen_good_ones(engine: Engine, backend: GatedBackend) -> None:
    colours = ["red", "green", "blue"] * 5
    first = asyncio.create_task(engine.classify(encoded("red")))
    await running(backend)
    tasks = [asyncio.create_task(engine.classify(encoded(colour))) for colour in colours]
    tasks.insert(6, asyncio.create_task(engine.classify(encoded("black"))))
    broken = asyncio.create_task(engine.classify(encoded("blue")[:60]))
    with pytest.raises(BrokenImage):
        await broken
    await ready(engine, 16)
    backend.gate.set()
    first_outcome, *outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
    assert scores(first_outcome).argmax() == 0
    failure = outcomes.pop(6)
    assert isinstance(failure, ModelFailed)
    assert "this one is poison" in failure.message
    assert [colours[n] for n, each in enumerate(outcomes)] == colours
    assert [("red", "green", "blue")[scores(each).argmax()] for each in outcomes] == colours
    assert backend.sizes[:2] == [1, 16]
    assert len(backend.sizes) <= 2 + 2 * math.log2(16)


async def test_scores_that_are_no_numbers_fail_alone() -> None:
    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        scores = means(images)
        scores[scores[:, 0] < 100] = np.nan
        return scores

    async with engine_of(Plain(predict)) as engine:
        good, bad = await asyncio.gather(
            engine.infer(pixels("red")), engine.infer(pixels("blue")), return_exceptions=True
        )
    assert scores(good).argmax() == 0
    assert isinstance(bad, ModelFailed)


async def test_values_that_overflow_are_the_callers_fault() -> None:
    huge = np.full((4, 4, 3), 3e38, np.float32)

    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        with np.errstate(over="ignore"):
            return means(images)

    async with engine_of(Plain(predict)) as engine:
        good, bad = await asyncio.gather(
            engine.infer(pixels("red")), engine.infer(huge), return_exceptions=True
        )
    assert scores(good).argmax() == 0
    assert isinstance(bad, InvalidRequest)
    assert "up to 3e+38" in bad.message


def raising(error: BaseException) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        raise error

    return predict


@pytest.mark.parametrize(
    ("predict", "said"),
    [
        (lambda images: np.ones((1, 3), np.float32), r"scores have shape \[1, 3\] for 2 images"),
        (lambda images: np.ones(2, np.float32), r"scores have shape \[2\]"),
        (lambda images: sys.exit("I am leaving"), "SystemExit: I am leaving"),
        (raising(asyncio.CancelledError()), "CancelledError"),
        (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
        (raising(AssertionError()), "AssertionError"),
    ],
)
async def test_a_model_that_breaks_its_word_is_a_typed_error(predict, said: str) -> None:
    async with engine_of(Plain(predict), sizes=(2, 16)) as engine:
        for _ in range(2):  # and the engine goes on
            with pytest.raises(ModelFailed, match=said):
                await engine.infer(pixels())


async def test_a_backends_own_typed_error_stays_what_it_is() -> None:
    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        raise InvalidRequest("not these")

    async with engine_of(Plain(predict)) as engine:
        with pytest.raises(InvalidRequest, match="not these"):
            await engine.infer(pixels())


# What goes in.


async def test_bytes_go_through_unseen_where_the_model_wants_them_so() -> None:
    seen = []

    def predict(images: Sequence[bytes]) -> np.ndarray:
        seen.extend(images)
        return np.ones((len(images), 2), np.float32)

    wanted = ImageInput(encoded=True, check_encoded=False)
    body = b"no image at all"
    async with engine_of(Plain(predict, wanted)) as engine:
        await engine.classify(body)
        outcome = await engine.classify(memoryview(body))
        assert outcome.timings.decode == 0
        with pytest.raises(EmptyImage):
            await engine.classify(b"")
        with pytest.raises(InvalidRequest, match="encoded images"):
            await engine.infer(pixels())
    assert seen == [body, body]
    assert seen[0] is body


async def test_arrays_of_any_size_and_tensors_of_the_models_own(backend: GatedBackend) -> None:
    backend.gate.set()
    async with engine_of(backend) as engine:
        for image in (pixels("blue"), pixels("blue", side=40), pixels("blue").astype(np.float32)):
            assert (await engine.infer(image)).scores.argmax() == 2
    channels_first = ImageInput(height=4, width=4, layout=Layout.NCHW)
    async with engine_of(Plain(lambda images: means(images)[:, :2], channels_first)) as engine:
        await engine.infer(np.ones((3, 4, 4), np.float32))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((101, 4, 3), np.uint8),
        np.zeros((5, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.float64),
    ],
)
async def test_arrays_of_other_shapes_are_refused(engine: Engine, image: np.ndarray) -> None:
    with pytest.raises(InvalidRequest):
        await engine.infer(image)
    assert engine.queued == 0


async def test_two_batches_run_at_once(backend: GatedBackend) -> None:
    backend.input = replace(GatedBackend.input, concurrent_batches=2)
    async with engine_of(backend, max_batch=4) as engine:
        tasks = [asyncio.create_task(engine.infer(pixels())) for _ in range(10)]
        for _ in range(2):
            await running(backend)
        assert (backend.sizes, engine.queued, len(backend.threads)) == ([4, 3], 3, 2)
        closing = asyncio.create_task(engine.aclose())
        await asyncio.wait(tasks[7:])
        assert [task.cancelled() for task in tasks] == [False] * 7 + [True] * 3
        assert not closing.done()
        assert not backend.closed_in
        backend.gate.set()
        await closing
        assert backend.closed_in in backend.threads
        assert [(await task).scores.shape for task in tasks[:7]] == [(3,)] * 7


async def test_concurrent_batches_answer_under_load_and_sleep_in_between() -> None:
    wanted = replace(GatedBackend.input, concurrent_batches=2)
    busy, most, lock = 0, 0, threading.Lock()

    def predict(images: Sequence[np.ndarray]) -> np.ndarray:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.001)
        with lock:
            busy -= 1
        return means(images)

    async with engine_of(Plain(predict, wanted), max_batch=3, max_wait_s=0.002) as engine:
        for _ in range(40):
            tasks = [engine.infer(np.full((4, 4, 3), number, np.uint8)) for number in range(1, 16)]
            scores = [outcome.scores[0] for outcome in await asyncio.gather(*tasks)]
            assert scores == list(range(1, 16))
            await asyncio.sleep(0.002)
    assert most == 2


# What it tells.


async def test_histograms_count_images_and_batches(backend: GatedBackend) -> None:
    metrics = WorkerMetrics()
    backend.gate.set()
    engine = Engine(
        backend,
        images=ImageConfig(),
        metrics=metrics,
        model="colours",
        batching=BatchingConfig(),
        decode_threads=1,
    )
    await asyncio.gather(*(engine.infer(pixels()) for _ in range(3)))
    await engine.classify(encoded("red"))
    await engine.aclose()
    seen = {
        name: metrics.registry.get_sample_value(
            f"fingerpost_worker_{name}_count", {"model": "colours"}
        )
        for name in ("decode_seconds", "queue_seconds", "inference_seconds", "batch_size_images")
    }
    assert seen == {
        "decode_seconds": 1,
        "queue_seconds": 4,
        "inference_seconds": 2,
        "batch_size_images": 2,
    }


@pytest.mark.parametrize("size", [1, 16])
async def test_warming_up_runs_in_the_models_own_thread(backend: GatedBackend, size: int) -> None:
    backend.gate.set()
    async with engine_of(backend, max_batch=size) as engine:
        assert await asyncio.to_thread(engine.warm_up) == 3
        assert backend.sizes == [1, 1, 1] if size == 1 else [1, size, 1, 1, size]
        await engine.infer(pixels())
        assert len(backend.threads) == 1


def test_warming_up_tells_what_is_wrong_with_a_model() -> None:
    with pytest.raises(ConfigurationError, match="fails on a gray image"):
        warm_up(Plain(lambda images: sys.exit(int("x"))), 4)
    with pytest.raises(ConfigurationError, match="batch of 1.*SystemExit: 3"):
        warm_up(Plain(lambda images: sys.exit(3)), 4)
    with pytest.raises(KeyboardInterrupt):  # somebody pressed Ctrl-C
        warm_up(Plain(raising(KeyboardInterrupt())), 4)
    with pytest.raises(ConfigurationError, match="expected finite scores"):
        warm_up(Plain(lambda images: means(images) * np.nan), 4)


async def test_the_loop_comes_before_the_models_thread(backend: GatedBackend) -> None:
    backend.gate.set()
    async with engine_of(backend) as engine:
        await engine.infer(pixels())
        (thread,) = backend.threads
        ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        theirs = min(19, ours + NICE) if sys.platform == "linux" else ours
        assert os.getpriority(os.PRIO_PROCESS, thread) == theirs


def test_the_best_come_first() -> None:
    scores = np.array([0.1, 0.7, 0.2], np.float32)
    assert top_labels(scores, ("a", "b", "c"), 2) == (("b", 0.7), ("c", 0.2))
    assert [label for label, _ in top_labels(scores, ("a", "b", "c"), 0)] == ["b", "c", "a"]
