"""Routing's promises, on simulated clusters: seeded, with the tolerance stated in each test.

Policies are compared on the same arrivals and the same work; docs/routing.md has the figures. The
simulations run in the background, see `tests.support.simulations`.
"""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
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
    OVERLOAD,
    RAMP,
    SLOW_LINKS,
    SLOW_LINKS_BATCHES,
    SLOWED,
    SPREAD,
    TESTBED,
    TWO_SLOW,
    few,
)
from benchmarks.routing.simulator import simulate
from tests.support.simulations import simulates

from fingerpost.client.routing import RoutingConfig

# A test simulates sixteen clusters itself at most, of two seconds each on an idle core.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLUSTERS = {
    "testbed": replace(
        TESTBED, clients=30, speeds=(1.0,) * 30, load=0.9, duration_s=8.0, warmup_s=3.0
    ),
    "spread": replace(SPREAD, duration_s=20.0),
    "two slow": replace(TWO_SLOW, duration_s=60.0),
    "equal": replace(EQUAL, duration_s=40.0),
    "mixed": replace(MIXED, duration_s=30.0),
    "four": replace(FOUR, duration_s=100.0),
    **HALF_SLOW,
}
BUSY = {
    f"{name}, busy": replace(CLUSTERS[name], load=0.9)
    for name in ("spread", "two slow", "four", *HALF_SLOW)
}


def with_policy(scenario: Scenario, policy: str, seed: int = 1) -> Scenario:
    return replace(scenario, seed=seed, routing=RoutingConfig(policy=policy))


def halves(results: list[Result]) -> list[tuple[Result, Result]]:
    """Pairs of the first half and the second."""
    half = len(results) // 2
    return list(zip(results[:half], results[half:], strict=True))


def ratio(pairs: Iterable[tuple[Result, Result]], share: float) -> float:
    """A quantile of the first over that of the second; the geometric mean of several pairs."""
    logs = [math.log(one.quantile(share) / other.quantile(share)) for one, other in pairs]
    return math.exp(fmean(logs))


@pytest.mark.parametrize("cluster", ["spread", "two slow", "four", *HALF_SLOW])
@simulates(
    lambda cluster: [
        with_policy(CLUSTERS[cluster], policy) for policy in ("hot-cold", "round-robin")
    ]
)
def test_p99_is_a_third_of_round_robins_where_speeds_differ(cluster, results):
    """No tolerance: most are under a tenth."""
    ours, turns = results
    assert ours.quantile(0.99) <= turns.quantile(0.99) / 3


def seeds(cluster: str) -> Iterable[int]:
    """Two seeds, and more for clusters whose figures vary more, or are near the bounds.

    One for those that keep the bounds with either of two.
    """
    one = ("testbed", "spread", *HALF_SLOW, "half 2 x slower, busy")
    more = {**dict.fromkeys(one, 1), "four, busy": 4, "half 16 x slower, busy": 4}
    return range(1, 1 + more.get(cluster, 2))


@pytest.mark.parametrize("cluster", CLUSTERS | BUSY)
@simulates(
    lambda cluster: [
        with_policy((CLUSTERS | BUSY)[cluster], policy, seed)
        for policy in ("hot-cold", "c3")
        for seed in seeds(cluster)
    ]
)
def test_never_worse_than_c3(cluster, results):
    """In the mean of the seeds: p50 within 3 %, p90 and p99 within 5 %, by which these vary.

    p50 within 5 % where half of the workers are 16 times slower and the others would be 96 % busy
    without them: C3 relieves these a little more, with images that take seconds, and its mean is
    7 % more.
    """
    half = 1.05 if cluster == "half 16 x slower, busy" else 1.03
    for share, most in ((0.5, half), (0.9, 1.05), (0.99, 1.05)):
        assert ratio(halves(results), share) <= most


@pytest.mark.parametrize(("workers", "clients", "slots"), FEW)
@simulates(
    lambda workers, clients, slots: [
        with_policy(few(workers, clients, slots), policy) for policy in ("hot-cold", "power-of-two")
    ]
)
def test_as_good_as_the_power_of_two_for_few_equal_workers(workers, clients, slots, results):
    """Of some 10,000 images: p50, p90 and p99 within 3 %."""
    ours, other = results
    for share in (0.5, 0.9, 0.99):
        assert ours.quantile(share) <= 1.03 * other.quantile(share)


def rising(workers: int, seed: int) -> list[Scenario]:
    """The load rises to 1.27 of the capacity; with 30 workers and round robin, to 1.08."""
    cluster = replace(
        RAMP,
        clients=workers,
        speeds=(1.0,) * workers,
        load=(0.75, 1.27),
        duration_s=25.0,
        warmup_s=0.0,
        seed=seed,
    )
    turns = replace(
        cluster, load=(0.75, 1.08), duration_s=16.0, routing=RoutingConfig(policy="round-robin")
    )
    return [cluster, turns] if workers == 30 else [cluster]


@pytest.mark.parametrize(("workers", "seed"), [(10, 1), (20, 2), (30, 1)])
@simulates(rising)
def test_no_errors_to_1_27_of_capacity(workers, seed, results):
    """Capacity is the nominal one; antagonists leave 1.34 of it. Round robin fails before."""
    assert results[0].errors == 0
    assert results[0].quantile(0.999) < 2.0
    assert all(turns.errors > 0 for turns in results[1:])


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded"])
@simulates(lambda policy: [with_policy(JOINING, policy)])
def test_a_new_worker_is_not_flooded(policy, results):
    """Of its fair share: under 0.3 in the first 5 s, under 1.0 for 25 s, 0.8 to 1.3 after 35 s."""
    [result] = results
    assert 0 < 16 * result.share(0, 20, 25) < 0.3
    assert all(16 * result.share(0, at, at + 5) < 1.0 for at in range(20, 45, 5))
    assert 0.8 < 16 * result.share(0, 55, 60) < 1.3


def failing(workers: int, clients: int, policy: str) -> list[Scenario]:
    """A worker answers errors in 1 ms from 10 s on."""
    return [
        Scenario(
            clients=clients,
            speeds=(1.0,) * workers,
            duration_s=40.0,
            load=0.4,
            slots=1,
            events=(Event(at_s=10.0, worker=0, mode="failing"),),
            routing=RoutingConfig(policy=policy),
        )
    ]


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded", "c3"])
@pytest.mark.parametrize(("workers", "clients"), [(4, 1), (16, 4), (40, 4)])
@simulates(failing)
def test_a_worker_that_fails_fast_is_not_a_sinkhole(policy, workers, clients, results):
    """Each client notices, and then sends it the trials alone.

    5 failures at most, then one trial each after 5, 10 and 20 s; and no request is lost.
    """
    [result] = results
    after = [at for at in result.sent[0] if at >= 10.0]
    assert len(after) <= clients * (5 + 3)
    assert result.errors == 0


def joining_and_failing(policy: str) -> list[Scenario]:
    return [
        Scenario(
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
    ]


@pytest.mark.parametrize("policy", ["hot-cold", "power-of-two", "least-loaded", "c3"])
@simulates(joining_and_failing)
def test_a_new_worker_that_fails_fast_gets_trials_alone(policy, results):
    """It comes at 10 s: one request of each client then, and after 5, 10 and 20 s."""
    [result] = results
    assert 4 <= len(result.sent[0]) <= 4 * 4
    assert result.errors == 0


REFUSING = Scenario(
    speeds=(1.0,) * 4,
    duration_s=30.0,
    events=(Event(at_s=10.0, worker=0, mode="refusing"), Event(at_s=20.0, worker=0)),
)


@simulates(lambda: [REFUSING])
def test_a_worker_that_refuses_is_tried_once_and_then_after_a_second(results):
    [result] = results
    down = [at for at in result.sent[0] if 10.01 < at < 20.0]
    assert len(down) <= 4  # after 1, 3, 7 s and what was under way
    assert result.errors == 0
    assert result.share(0, 28.0) > 0.2


SLOW_ONES = {
    "four slots": SLOWED,
    "one slot": replace(SLOWED, slots=1, service_s=0.04, steady=True),
    "one slot, 8 at once": replace(SLOWED, slots=1, service_s=0.04, steady=True, at_once=8),
}
SLOW_SEEDS = {"four slots": (1, 2, 3), "one slot": (1, 2), "one slot, 8 at once": (1,)}


def slowed(name: str, clients: int) -> list[Scenario]:
    """With the slow worker, and the other three alone; as many seeds of each as they vary."""
    cluster = SLOW_ONES[name]
    if cluster.at_once:
        cluster = replace(cluster, at_once=cluster.at_once // clients)
    slow = [replace(cluster, clients=clients, seed=seed) for seed in SLOW_SEEDS[name]]
    alone = [
        replace(each, speeds=(1.0,) * 3, load=0.5 * 4 / 3, events=(), duration_s=60.0)
        for each in slow
    ]
    return [*slow, *alone]


@pytest.mark.parametrize("name", SLOW_ONES)
@pytest.mark.parametrize("clients", [1, 4])
@simulates(slowed)
def test_a_slowed_worker_is_left_and_found_again(name, clients, results):
    """One of four at a tenth for 50 s: p99 within 1.5 x of the other three alone; its share under
    5 % of a quarter from 5 s on, and back to 0.8 of it or more 30 s after its recovery.

    In the mean of the seeds: a share of 5 % are 50 of 4,000 images.
    """
    p99s, shares = [], []
    for result, alone in halves(results):
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


def full_links(workers: int) -> Scenario:
    return replace(LINKS, speeds=(1.0,) * workers, at_once=workers)


@pytest.mark.parametrize("workers", [2, 4, 8])
@simulates(lambda workers: [full_links(workers)])
def test_links_are_filled(workers, results):
    """Uploads take all the time, four for each link: all but 2 % of the links' rate is used.

    A message takes 50 ms longer there, as behind the queue of a real link.
    """
    [result], cluster = results, full_links(workers)
    begin, end = 8.0, 28.0
    images = sum(
        max(0.0, min(born + took, end) - max(born, begin)) / took
        for born, took in zip(result.arrivals, result.latencies, strict=True)
    )
    rate = images * cluster.image_mb / (end - begin)
    assert rate >= 0.98 * workers * cluster.mb_per_s[0]
    assert result.errors == result.retries == 0


def cold_start(cold: float, clients: int, at_once: int) -> list[Scenario]:
    return [
        replace(
            BATCHES,
            clients=clients,
            at_once=at_once,
            events=(
                *(Event(at_s=0.0, worker=worker, speed=cold) for worker in (1, 2)),
                *(Event(at_s=0.1, worker=worker, speed=1 / cold) for worker in (1, 2)),
            ),
        )
    ]


@pytest.mark.parametrize(("clients", "at_once"), [(1, 16), (4, 4)])
@pytest.mark.parametrize("cold", [0.2, 0.05])
@simulates(cold_start)
def test_a_cold_start_is_forgotten(clients, at_once, cold, results):
    """Two of three equal workers are 5 or 20 times slower for their first 0.1 s.

    Their batches and many slots leave room at the third, so that no client is forced to try them
    again. From 7 s on each gets a third, within a tenth of it.
    """
    [result] = results
    assert [3 * result.share(worker, 7.0) for worker in range(3)] == pytest.approx([1] * 3, rel=0.1)


def overload(times: int, queue: str) -> list[Scenario]:
    """Clients that together have so many times as many images in flight as there are places."""
    workers, clients, at_once = {"short": (1, 8, times), "three": (3, 8, 3 * times)}.get(
        queue, (1, 4, 2 * times)
    )
    cluster = replace(OVERLOAD, clients=clients, at_once=at_once, speeds=(1.0,) * workers)
    if queue == "slow link":
        cluster = replace(cluster, rtt_s=0.02)
    return [cluster, replace(cluster, max_in_flight=4096)]


@pytest.mark.parametrize("times", [2, 4, 16])
@pytest.mark.parametrize("queue", ["short", "three", "few clients", "slow link"])
@simulates(overload)
def test_overload_costs_nothing_and_is_shared(queue, times, results):
    """As many answers, within a tenth, as with an endless queue, and 99 % wait less than 2 x mean.

    None fails. Where a round trip takes twice as long as an image, a short queue is empty at times:
    0.85 of the answers. At twice the capacity, too, p99 is up to 2.4 x the mean (with an endless
    queue 1.66), because few images wait, and the time of one is the larger part.
    """
    limited, endless = results
    assert limited.errors == 0
    least = 0.85 if queue == "slow link" else 0.9
    assert len(limited.latencies) >= least * len(endless.latencies)
    most = 2.4 if queue == "slow link" or times == 2 else 2.0
    assert limited.quantile(0.99) <= most * fmean(limited.latencies)


@pytest.mark.parametrize("times", [2, 4, 16])
@pytest.mark.parametrize("cluster", [SLOW_LINKS, SLOW_LINKS_BATCHES], ids=["alone", "batches"])
@simulates(lambda cluster, times: [replace(cluster, load=times * 100 / cluster.capacity)])
def test_slow_links_carry_what_arrives_in_time(cluster, times, results):
    """The clients' links are full, and 0.95 of what they carry is answered before its deadline.

    0.85 where batches make the time at the worker vary. If all uploads begin at once, nothing is.
    """
    [result] = results
    seconds = cluster.duration_s - cluster.warmup_s
    carried = seconds * cluster.clients * cluster.client_mb_per_s / cluster.image_mb
    least = 0.95 if cluster.batch_s is None else 0.85
    assert len(result.latencies) - result.errors >= least * carried


SHORT = replace(SPREAD, duration_s=5.0)


@pytest.mark.shell
def test_the_same_seed_gives_the_same_result_in_any_process():
    other = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, other) as pool:
        result = pool.submit(simulate, SHORT).result()
    assert result == simulate(SHORT)
    assert simulate(replace(SHORT, seed=2)).latencies != result.latencies
