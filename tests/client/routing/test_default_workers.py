"""Routing among workers as users start them: batches of up to 32, times that are measured.

Seeded simulations with `Batcher` itself; docs/routing.md has the figures of several seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import fmean

import pytest
from benchmarks.routing.central_queue import central_queue
from benchmarks.routing.scenario import Event, Result, Scenario
from benchmarks.routing.scenarios import DEFAULT_WORKERS, SLOWED, default_workers
from tests.support.simulations import simulates

from fingerpost.client.routing import RoutingConfig

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOADS = {
    "linear, 40%": 0.4,
    "linear, 80%": 0.8,
    "half, 80%": 0.8,
    "flat, 40%": 0.4,
    "linear, 2 batches, 70%": 0.7,
    "linear, sizes, 50%": 0.5,
}


def rivals(name: str) -> list[Scenario]:
    """2,000 images, with the default policy and with C3."""
    cluster = DEFAULT_WORKERS[name]
    seconds = 2000 / (LOADS[name] * cluster.capacity)
    cluster = replace(cluster, duration_s=cluster.warmup_s + seconds)
    return [replace(cluster, routing=RoutingConfig(policy=policy)) for policy in ("hot-cold", "c3")]


@pytest.mark.parametrize("name", LOADS)
@simulates(rivals)
def test_default_workers_are_no_worse_than_with_c3_and_nearly_one_queue(name, results):
    """Mean and p99 within 5 % of C3's, p50 within 8 %. Mean within 15 % of a central queue's.

    Where sizes differ within 25 %: in the central queue no image waits behind a large one while
    another worker is free. And p99 within 20 % of C3's: it is 20 images of 2,000.
    """
    half = len(results) // 2
    ours, theirs = results[:half], results[half:]
    assert not any(result.errors for result in ours)

    def ratio(figure: Callable[[Result], float]) -> float:
        return fmean(figure(one) / figure(other) for one, other in zip(ours, theirs, strict=True))

    assert ratio(lambda result: fmean(result.latencies)) <= 1.05
    p99 = 1.2 if rivals(name)[0].size_spread else 1.05
    assert ratio(lambda result: result.quantile(0.99)) <= p99
    assert ratio(lambda result: result.quantile(0.5)) <= 1.08
    clusters = rivals(name)[:half]
    queued = fmean(fmean(central_queue(each)) + each.rtt_s for each in clusters)
    mean = fmean(fmean(result.latencies) for result in ours)
    assert mean <= (1.25 if clusters[0].size_spread else 1.15) * queued


SLOW = replace(
    SLOWED,
    slots=32,
    batch_s=(0.0, 0.04),
    service_s=0.04,
    steady=True,
    clients=4,
    duration_s=60.0,
    events=(Event(at_s=10.0, worker=0, speed=0.1), Event(at_s=30.0, worker=0, speed=10.0)),
)


@simulates(lambda: [SLOW])
def test_a_default_worker_that_is_slowed_is_left_and_found_again(results):
    """One of four at a tenth for 20 s: under 5 % of a quarter from 5 s on, and all of it later."""
    [result] = results
    assert result.share(0, 15, 30) < 0.05 / 4
    assert result.share(0, 50, 60) > 0.8 / 4


def test_the_central_queue_of_one_worker_is_md1():
    """Linear, at 70 %: the mean is the time of an image times 1 + 0.7 / (2 x 0.3)."""
    cluster = default_workers(0.0, 0.7, 40_000, speeds=(1.0,), slots=1)
    mean = fmean(central_queue(cluster))
    assert mean == pytest.approx(cluster.service_s * (1 + 0.7 / 0.6), rel=0.05)
