"""Routing's promises, on simulated clusters: seeded, with the tolerance stated in each test.

Rules are compared on the same arrivals and the same work. The figures seen are in docs/routing.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from statistics import fmean

import pytest
from benchmarks.routing.scenario import Event, Result, Scenario
from benchmarks.routing.scenarios import (
    BATCHES,
    EQUAL,
    FEW,
    FOUR,
    HALF_SLOW,
    JOINING,
    LINKS,
    MIXED,
    RAMP,
    SLOWED,
    SPREAD,
    TESTBED,
    TWO_SLOW,
    few,
)
from benchmarks.routing.simulator import simulate

from fingerpost.client.routing import RoutingConfig

pytestmark = pytest.mark.slow

CLUSTERS = {
    "testbed": replace(
        TESTBED, clients=30, speeds=(1.0,) * 30, load=0.9, duration_s=8.0, warmup_s=3.0
    ),
    "spread": replace(SPREAD, duration_s=20.0),
    "two slow": replace(TWO_SLOW, duration_s=100.0),
    "equal": replace(EQUAL, duration_s=60.0),
    "mixed": replace(MIXED, duration_s=30.0),
    "four": replace(FOUR, duration_s=100.0),
    **HALF_SLOW,
}
BUSY = {
    f"{name}, busy": replace(CLUSTERS[name], load=0.9)
    for name in ("spread", "two slow", "four", *HALF_SLOW)
}


@cache
def run(cluster: str, policy: str, seed: int = 1) -> Result:
    scenario = (CLUSTERS | BUSY)[cluster]
    return simulate(replace(scenario, seed=seed, routing=RoutingConfig(policy=policy)))


def ratio(cluster: str, policy: str, share: float, seeds: Iterable[int]) -> float:
    """A quantile under hot-cold over that under `policy`; the geometric mean of several seeds."""
    logs = [
        math.log(
            run(cluster, "hot-cold", seed).quantile(share)
            / run(cluster, policy, seed).quantile(share)
        )
        for seed in seeds
    ]
    return math.exp(fmean(logs))


@pytest.mark.parametrize("cluster", ["spread", "two slow", "four", *HALF_SLOW])
def test_p99_is_a_third_of_round_robins_where_speeds_differ(cluster):
    """No tolerance: most are under a tenth."""
    assert run(cluster, "hot-cold").quantile(0.99) <= run(cluster, "round-robin").quantile(0.99) / 3


@pytest.mark.parametrize("cluster", CLUSTERS | BUSY)
def test_never_worse_than_c3(cluster):
    """Of two seeds, eight for the small and extreme clusters: p50 within 3 %, p90 and p99 within
    5 %, by which these vary.

    p50 within 5 % where half of the workers are 16 times slower and the others would be 96 % busy
    without them: C3 relieves these a little more, with images that take seconds, and its mean is
    7 % more.
    """
    seeds = range(1, 9) if cluster.startswith(("four", "half 16")) else (1, 2)
    half = 1.05 if cluster == "half 16 x slower, busy" else 1.03
    for share, most in ((0.5, half), (0.9, 1.05), (0.99, 1.05)):
        assert ratio(cluster, "c3", share, seeds) <= most


@pytest.mark.parametrize(("workers", "clients", "slots"), FEW)
def test_as_good_as_the_power_of_two_for_few_equal_workers(workers, clients, slots):
    """Of some 10,000 images: p50, p90 and p99 within 3 %."""
    cluster = few(workers, clients, slots)
    ours, other = (
        simulate(replace(cluster, routing=RoutingConfig(policy=policy)))
        for policy in ("hot-cold", "power-of-two")
    )
    for share in (0.5, 0.9, 0.99):
        assert ours.quantile(share) <= 1.03 * other.quantile(share)


@pytest.mark.parametrize(("workers", "seed"), [(10, 1), (20, 2), (30, 1)])
def test_no_errors_to_1_27_of_capacity(workers, seed):
    """Capacity is what was paid for; antagonists leave 1.34 of it. Turns fail before."""
    cluster = replace(
        RAMP,
        clients=workers,
        speeds=(1.0,) * workers,
        load=(0.75, 1.27),
        duration_s=25.0,
        warmup_s=0.0,
        seed=seed,
    )
    result = simulate(cluster)
    assert result.errors == 0
    assert result.quantile(0.999) < 2.0
    if workers == 30:
        turns = RoutingConfig(policy="round-robin")
        assert simulate(replace(cluster, routing=turns)).errors > 0


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded"])
def test_a_new_worker_is_not_flooded(policy):
    """Of its fair share: under 0.3 in the first 5 s, under 1.0 for 25 s, 0.8 to 1.3 after 35 s."""
    result = simulate(replace(JOINING, routing=RoutingConfig(policy=policy)))
    assert 0 < 16 * result.share(0, 20, 25) < 0.3
    assert all(16 * result.share(0, at, at + 5) < 1.0 for at in range(20, 45, 5))
    assert 0.8 < 16 * result.share(0, 55, 60) < 1.3


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded", "c3"])
@pytest.mark.parametrize(("workers", "clients"), [(4, 1), (16, 4), (40, 4)])
def test_a_worker_that_fails_fast_is_no_sinkhole(policy, workers, clients):
    """It answers errors in 1 ms from 10 s on: each client notices and then sends it the trials.

    5 failures at most, then one trial each after 5, 10 and 20 s; and no request is lost.
    """
    cluster = Scenario(
        clients=clients,
        speeds=(1.0,) * workers,
        duration_s=40.0,
        load=0.4,
        slots=1,
        events=(Event(at_s=10.0, worker=0, mode="failing"),),
        routing=RoutingConfig(policy=policy),
    )
    result = simulate(cluster)
    after = [at for at in result.sent[0] if at >= 10.0]
    assert len(after) <= clients * (5 + 3)
    assert result.errors == 0


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded", "c3"])
def test_a_new_worker_that_fails_fast_gets_trials_alone(policy):
    """It comes at 10 s: one request of each client then, and after 5, 10 and 20 s."""
    cluster = Scenario(
        clients=4,
        speeds=(1.0,) * 8,
        duration_s=40.0,
        load=0.4,
        slots=1,
        events=(
            Event(at_s=10.0, worker=0, mode="joining"),
            Event(at_s=10.0, worker=0, mode="failing"),
        ),
        routing=RoutingConfig(policy=policy),
    )
    result = simulate(cluster)
    assert 4 <= len(result.sent[0]) <= 4 * 4
    assert result.errors == 0


def test_a_worker_that_refuses_is_asked_once_and_then_after_a_second():
    cluster = Scenario(
        speeds=(1.0,) * 4,
        duration_s=30.0,
        events=(Event(at_s=10.0, worker=0, mode="refusing"), Event(at_s=20.0, worker=0)),
    )
    result = simulate(cluster)
    down = [at for at in result.sent[0] if 10.01 < at < 20.0]
    assert len(down) <= 4  # after 1, 3, 7 s and what was under way
    assert result.errors == 0
    assert result.share(0, 28.0) > 0.2


SLOW_ONES = {
    "four slots": SLOWED,
    "one slot": replace(SLOWED, slots=1, service_s=0.04, steady=True),
    "one slot, 8 at once": replace(SLOWED, slots=1, service_s=0.04, steady=True, at_once=8),
}


@pytest.mark.parametrize("name", SLOW_ONES)
@pytest.mark.parametrize("clients", [1, 4])
def test_a_slowed_worker_is_left_and_found_again(name, clients):
    """One of four at a tenth for 50 s: p99 within 1.5 x of the other three alone; its share under
    5 % of a quarter from 5 s on, and back to 0.8 of it or more 30 s after its recovery.

    Of three seeds the mean: a share of 5 % are 50 of 4,000 images.
    """
    cluster = SLOW_ONES[name]
    if cluster.at_once:
        cluster = replace(cluster, at_once=cluster.at_once // clients)
    p99s, shares = [], []
    for seed in (1, 2, 3):
        seeded = replace(cluster, clients=clients, seed=seed)
        result = simulate(seeded)
        alone = simulate(replace(seeded, speeds=(1.0,) * 3, load=0.5 * 4 / 3, events=()))
        slow = sorted(
            took
            for took, born in zip(result.latencies, result.arrivals, strict=True)
            if 25.0 <= born < 70.0
        )
        p99s.append(slow[int(0.99 * len(slow))] / alone.quantile(0.99))
        shares.append(result.share(0, 25, 70))
        assert result.share(0, 100, 120) > 0.8 / 4
    assert fmean(p99s) <= 1.5
    assert fmean(shares) < 0.05 / 4


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_links_are_filled(workers):
    """Uploads take all the time, four for each link: all but 2 % of the links' rate is used.

    What few bytes say comes 50 ms later there, as behind the queue of a real link.
    """
    cluster = replace(LINKS, speeds=(1.0,) * workers, at_once=workers)
    result = simulate(cluster)
    begin, end = 8.0, 28.0
    images = sum(
        max(0.0, min(born + took, end) - max(born, begin)) / took
        for born, took in zip(result.arrivals, result.latencies, strict=True)
    )
    rate = images * cluster.image_mb / (end - begin)
    assert rate >= 0.98 * workers * cluster.mb_per_s[0]
    assert result.errors == result.retries == 0


@pytest.mark.parametrize(("clients", "at_once"), [(1, 16), (4, 4)])
@pytest.mark.parametrize("cold", [0.2, 0.05])
def test_a_cold_start_is_forgotten(clients, at_once, cold):
    """Two of three equal workers are 5 or 20 times slower for their first 0.1 s.

    Their batches and many slots leave room at the third, so that nobody is forced to try them
    again. From 7 s on each gets a third, within a tenth of it.
    """
    cluster = replace(
        BATCHES,
        clients=clients,
        at_once=at_once,
        events=(
            *(Event(at_s=0.0, worker=worker, speed=cold) for worker in (1, 2)),
            *(Event(at_s=0.1, worker=worker, speed=1 / cold) for worker in (1, 2)),
        ),
    )
    result = simulate(cluster)
    assert [3 * result.share(worker, 7.0) for worker in range(3)] == pytest.approx([1] * 3, rel=0.1)


def test_the_same_seed_gives_the_same_result():
    cluster = replace(SPREAD, duration_s=5.0)
    one, two = simulate(cluster), simulate(cluster)
    assert (one.latencies, one.sent) == (two.latencies, two.sent)
    assert one.latencies != simulate(replace(cluster, seed=2)).latencies
