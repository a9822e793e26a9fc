"""How large batches should be, and how many images a model works on at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fingerpost.worker.engine.batching.batch_sizes import BatchSizes
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.batching.latency_model import LatencyModel
from tests.support.batchers import batcher, items


def linear(size: int) -> float:
    return 0.010 * size


def flat(size: int) -> float:
    return 0.010


def half(size: int) -> float:
    return 0.005 + 0.005 * size


def learned(
    line: Callable[[int], float], *, concurrent: int = 1, **options: tuple[int, ...]
) -> BatchSizes:
    latency = LatencyModel()
    sizes = BatchSizes(BatchingConfig(**options), latency, concurrent)  # type: ignore[arg-type]
    for size in (1, 2, 4, 1, 8, 3) * 10:
        latency.observe(size, line(size))
        sizes.learned()
    return sizes


@pytest.mark.parametrize(
    ("line", "concurrent", "images"),
    [(linear, 1, 1), (linear, 2, 2), (flat, 1, 32), (half, 1, 1.94)],
)
def test_the_capacity_is_a_lone_images_time_times_images_a_second(
    line: Callable[[int], float], concurrent: int, images: float
) -> None:
    assert learned(line, concurrent=concurrent).capacity == pytest.approx(images, rel=0.03)


def test_until_two_sizes_have_run_the_capacity_is_the_largest_batch() -> None:
    latency = LatencyModel()
    sizes = BatchSizes(BatchingConfig(), latency, 1)
    for _ in range(50):
        latency.observe(1, 0.010)
    assert (sizes.capacity, sizes.useful(20), sizes.alone_part(32)) == (32, 20, 1)
    latency.observe(2, 0.020)
    assert sizes.capacity == pytest.approx(1, rel=0.05)


def test_what_was_learned_of_two_sizes_outlasts_a_thousand_runs_of_one() -> None:
    latency = LatencyModel()
    sizes = BatchSizes(BatchingConfig(), latency, 1)
    for size in (1, 8) * 10 + (1,) * 1000:
        latency.observe(size, flat(size))
    assert sizes.capacity == pytest.approx(32, rel=0.05)


@pytest.mark.parametrize(
    ("line", "ready", "useful"), [(linear, 20, 1), (flat, 20, 20), (flat, 50, 32), (half, 8, 8)]
)
def test_a_batch_is_as_small_as_it_can_be_for_nearly_the_same_images_a_second(
    line: Callable[[int], float], ready: int, useful: int
) -> None:
    assert learned(line).useful(ready) == useful


@pytest.mark.parametrize("fixed", [0, 0.05, 0.3, 0.9, 1])
@pytest.mark.parametrize("ready", [1, 2, 7, 32])
def test_it_costs_at_most_2_percent_of_the_images_a_second(fixed: float, ready: int) -> None:
    def line(size: int) -> float:
        return 0.010 * (fixed + (1 - fixed) * size)

    useful = learned(line).useful(ready)
    assert useful / line(useful) >= 0.98 * ready / line(ready)


def test_a_model_of_microseconds_runs_all_that_is_ready() -> None:
    assert learned(lambda size: 0.000002 * size).useful(16) >= 15


def test_fixed_sizes_run_as_they_are() -> None:
    assert learned(linear, sizes=(1, 8, 32)).useful(20) == 20


def times(queue: Batcher[int], line: Callable[[int], float], count: int, start: float) -> list[int]:
    """The sizes of `count` batches of a model that always finds 16 images ready."""
    ran = []
    for step in range(count):
        while queue.ready < 16:
            queue.submit(0, cost=0, now=start)
        batch = queue.poll(start)
        ran.append(len(items(batch)))
        start += line(ran[-1])
        queue.complete(start)
        assert step < count
    return ran


def test_a_linear_model_comes_to_run_single_images_and_a_flat_one_all_of_them() -> None:
    queue = batcher(max_batch=32, max_queue=64)
    queue.submit(0, cost=0, now=0)  # two sizes: 1 and 16
    assert len(items(queue.poll(0))) == 1
    queue.complete(linear(1))
    ran = times(queue, linear, 80, 1.0)
    assert ran[0] == 16
    assert sorted(set(ran[20:])) == [1, 2]  # 2 now and then, to see whether it is still so
    assert ran[20:].count(2) <= 5
    assert 16 in times(queue, flat, 100, 10.0)[50:]  # it has changed, and this is noticed
