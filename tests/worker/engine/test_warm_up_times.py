"""What a warm-up measures: by a clock that the runs themselves move."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from fingerpost.worker.engine.warm_up_times import measure
from tests.support.engines import Plain, engine_of, means


class Model:
    """A model whose runs take what `took_s` says, and which notes their sizes."""

    def __init__(self, took_s: Callable[[int], float]) -> None:
        self.took_s = took_s
        self.ran: list[int] = []
        self.now = 0.0

    def run(self, size: int) -> None:
        self.ran.append(size)
        self.now += self.took_s(size)


LINEAR = 0.1
SLOW = 0.5


@pytest.mark.parametrize(
    ("took_s", "sizes", "first_s", "ran", "learned"),
    [
        (lambda n: LINEAR * n, (1, 8), (9, 9), [1, 1, 8], [(1, 0.1), (1, 0.1), (8, 0.8)]),
        (lambda n: LINEAR * n, (1,), (9,), [1, 1], [(1, 0.1)] * 3),
        (lambda n: LINEAR, (4, 8, 16, 64), (9,) * 4, [4, 4, 8, 16, 64],
         [(4, 0.1), (8, 0.1), (16, 0.1), (64, 0.1)]),
        # 16 s one by one: the first run counts, or these 16 s where it took longer.
        (lambda n: SLOW * n, (1, 32), (1, 15), [1, 1], [(1, 0.5), (1, 0.5), (32, 15)]),
        (lambda n: SLOW * n, (1, 32), (1, 60), [1, 1], [(1, 0.5), (1, 0.5), (32, 16)]),
        # A single image takes a minute.
        (lambda n: 60.0, (1, 2), (60, 60), [1], [(1, 60), (1, 60), (2, 60)]),
    ],
    ids=["two sizes", "one size", "fixed sizes", "slow", "slow and compiled", "minutes"],
)  # fmt: skip
def test_what_runs_and_what_is_learned(took_s, sizes, first_s, ran, learned):
    model = Model(took_s)
    found: list[tuple[int, float]] = []
    measure(
        model.run,
        sizes,
        first_s,
        lambda size, seconds: found.append((size, seconds)),
        clock=lambda: model.now,
    )
    assert model.ran == ran
    assert found == [(size, pytest.approx(seconds)) for size, seconds in learned]


def test_of_two_runs_of_the_smallest_the_shorter_counts():
    times = iter([0.3, 0.1])
    model = Model(lambda n: next(times))
    found: list[tuple[int, float]] = []
    measure(model.run, (1,), (9,), lambda *run: found.append(run), clock=lambda: model.now)
    assert found == [(1, pytest.approx(0.1))] * 3


@pytest.mark.parametrize(("each_s", "slots"), [(0.01, 1), (0.0, 8)])
async def test_a_worker_knows_its_times_and_slots_before_the_first_image(
    each_s: float, slots: int
) -> None:
    """Of a model of 10 ms for each image of a batch, and of one of 10 ms for all of them.

    The first run of each size takes longer, as where a framework compiles.
    """
    known: set[int] = set()

    def slow(images: Sequence[np.ndarray]) -> np.ndarray:
        time.sleep(0.01 + each_s * (len(images) - 1) + 0.1 * (len(images) not in known))
        known.add(len(images))
        return means(images)

    async with engine_of(Plain(slow), max_batch=8) as engine:
        assert engine.forecast(0) == (0, 0)
        assert await asyncio.to_thread(engine.warm_up) == 3
        expected_s, alone_s = engine.forecast(0)
        assert 0.009 < alone_s < 0.05
        assert expected_s == alone_s
        assert abs(engine.slots - slots) <= slots / 4
