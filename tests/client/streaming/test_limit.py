"""The adaptive concurrency against a simulated cluster: it finds the knee, and follows it."""

from __future__ import annotations

import heapq
import random

import pytest

from fingerpost.client.streaming.limit import AdaptiveLimit


class Cluster:
    """Serves `slots` at a time, each taking `service_s` plus a delay of the link; noisy."""

    def __init__(self, slots: int, service_s: float, delay_s: float = 0.0, seed: int = 1) -> None:
        self.slots = slots
        self.service_s = service_s
        self.delay_s = delay_s
        self.now = 0.0
        self._free = [0.0] * slots
        self._answers: list[float] = []
        self._rng = random.Random(seed)

    def run(self, limit: AdaptiveLimit, answers: int, *, most: int = 10**9) -> float:
        """So many answers, the limit filled up after each; answers a second."""
        start = self.now
        for _ in range(answers):
            while len(self._answers) < min(limit.limit, most):
                begin = max(self.now, heapq.heappop(self._free))
                end = begin + self.service_s * self._rng.uniform(0.8, 1.2)
                heapq.heappush(self._free, end)
                heapq.heappush(self._answers, end + self.delay_s)
            in_flight = len(self._answers)
            self.now = heapq.heappop(self._answers)
            limit.answered(self.now, in_flight)
        return answers / (self.now - start)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slots", "service_s", "delay_s"),
    [(4, 0.02, 0.0), (16, 0.05, 0.0), (64, 0.05, 0.0), (32, 0.02, 0.05), (256, 0.1, 0.01)],
)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_fills_the_cluster_without_queues_that_grow(slots, service_s, delay_s, seed):
    cluster = Cluster(slots, service_s, delay_s, seed)
    limit = AdaptiveLimit()
    cluster.run(limit, 20_000)
    needed = slots * (service_s + delay_s) / service_s
    assert cluster.run(limit, 20_000) >= 0.9 * slots / service_s
    assert limit.limit <= max(20, 3 * needed)


@pytest.mark.slow
def test_it_follows_a_cluster_that_grows_and_shrinks():
    limit = AdaptiveLimit()
    small, large = Cluster(8, 0.05), Cluster(64, 0.05)
    small.run(limit, 10_000)
    before = limit.limit
    assert before <= 24
    limit_at = small.now
    large.now = limit_at
    large.run(limit, 60_000)
    assert limit.limit >= 48
    assert large.run(limit, 10_000) >= 0.8 * 64 / 0.05


def test_an_overloaded_worker_lowers_it_once_a_round():
    limit = AdaptiveLimit(initial=100)
    for _ in range(50):
        limit.answered(1.0, 100, overloaded=True)
    assert limit.limit == 70
    for count in range(200):
        limit.answered(1.0 + count * 0.01, 70)
    limit.answered(4.0, 70, overloaded=True)
    assert limit.limit == 49


def test_a_slow_source_teaches_nothing():
    limit = AdaptiveLimit()
    Cluster(64, 0.05).run(limit, 20_000, most=5)
    assert limit.limit == 16


def test_it_keeps_within_a_ceiling():
    limit = AdaptiveLimit()
    cluster = Cluster(64, 0.05)
    cluster.run(limit, 10_000)
    limit.ceiling(10)
    assert limit.limit == 10
    cluster.run(limit, 10_000)
    assert limit.limit <= 10
    limit.ceiling(0)
    assert limit.limit == 4
