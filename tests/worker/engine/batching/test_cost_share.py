"""Which part of a run's time goes by the size of its images."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fingerpost.worker.engine.batching.cost_share import CostShare
from fingerpost.worker.engine.batching.latency_model import LatencyModel
from tests.support.batchers import batcher, items


def trained(share: float, *, noise: float = 0.0, runs: int = 300) -> LatencyModel:
    """A model of 20 ms for an average image of 1 MB, of which that share goes by its size."""
    model, rng = LatencyModel(), random.Random(1)
    for _ in range(runs):
        cost = rng.lognormvariate(-0.32, 0.8)
        seconds = 0.02 * (1 + share * (cost - 1)) * rng.uniform(1 - noise, 1 + noise)
        model.observe(1, seconds, cost)
    return model


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_is_found_and_with_it_the_time_of_a_large_image(share: float, noise: float):
    model = trained(share, noise=noise)
    assert model.by_cost.share == pytest.approx(share, abs=0.15)
    large_s = model.predict(1) * model.by_cost.factor(4.0)
    assert large_s == pytest.approx(0.02 * (1 + share * 3), rel=0.3)


def test_images_of_one_size_tell_nothing():
    model, rng = LatencyModel(), random.Random(1)
    for _ in range(200):
        model.observe(1, 0.02 * rng.uniform(0.8, 1.2), 0.6)
    assert model.by_cost.factor(0.6) == pytest.approx(1)
    assert model.by_cost.share < 0.05


def test_a_stall_with_a_small_image_does_not_turn_the_share_round():
    model = trained(1.0)
    model.observe(1, 60.0, 0.1)
    assert model.by_cost.share > 0.7
    assert model.predict(1) < 0.04


COSTS = st.floats(0, 1e12)


@example([(5e-324, 0.0)], 4.0)
@given(st.lists(st.tuples(COSTS, st.floats(-1, 1e9)), max_size=30), COSTS)
def test_the_share_is_a_share_and_no_time_is_negative(runs: list, cost: float):
    found = CostShare()
    for seen, excess in runs:
        found.seen(seen)
        found.observe(seen, excess)
    assert 0 <= found.share <= 1
    assert found.factor(cost) >= 0
    assert found.factor_behind(cost, 3) >= 0


def test_what_waits_behind_large_images_is_expected_later():
    """20 ms for an image of 1 MB, one at a time; one of 4 MB runs, and one waits."""
    queue, rng, now = batcher(max_batch=1), random.Random(1), 0.0
    for _ in range(300):
        cost = rng.lognormvariate(-0.32, 0.8)
        queue.submit(1, cost=cost, now=now)
        assert items(queue.poll(now)) == [1]
        now += 0.02 * cost
        queue.complete(now)
    alone_s = queue.forecast(now, 0)[1]
    assert alone_s == pytest.approx(0.02, rel=0.25)
    queue.submit(1, cost=4, now=now)
    queue.poll(now)
    assert queue.expected_s(now) == pytest.approx(5 * alone_s, rel=0.15)
    queue.submit(2, cost=4, now=now)
    assert queue.expected_s(now) == pytest.approx(9 * alone_s, rel=0.15)
