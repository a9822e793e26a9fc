"""Routing's promises, on simulated clusters: seeded, with the tolerance stated in each test.

Rules are compared on the same arrivals and the same work. The figures seen are in docs/routing.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from benchmarks.routing.scenario import Event, Result, Scenario
from benchmarks.routing.scenarios import EQUAL, JOINING, MIXED, RAMP, SLOWED, SPREAD, TESTBED
from benchmarks.routing.scenarios import TWO_SLOW as TWO
from benchmarks.routing.simulator import simulate

from fingerpost.client.routing import RoutingConfig

CLUSTERS = {
    "testbed": replace(
        TESTBED, clients=40, speeds=(1.0,) * 40, load=0.9, duration_s=8.0, warmup_s=3.0
    ),
    "spread": replace(SPREAD, duration_s=20.0),
    "two slow": replace(TWO, duration_s=100.0),
    "equal": replace(EQUAL, duration_s=60.0),
    "mixed": replace(MIXED, duration_s=30.0),
    "2 x": Scenario(clients=4, speeds=(1.0,) * 8 + (0.5,) * 8, duration_s=15.0),
    "4 x": Scenario(clients=4, speeds=(1.0,) * 8 + (0.25,) * 8, duration_s=20.0),
    "16 x": Scenario(clients=4, speeds=(1.0,) * 8 + (1 / 16,) * 8, duration_s=25.0),
}


@cache
def run(cluster: str, policy: str, seed: int = 1) -> Result:
    return simulate(replace(CLUSTERS[cluster], seed=seed, routing=RoutingConfig(policy=policy)))


@pytest.mark.parametrize("cluster", ["spread", "two slow", "2 x", "4 x", "16 x"])
def test_p99_is_a_third_of_round_robins_where_speeds_differ(cluster):
    """No tolerance: most are under a tenth."""
    assert run(cluster, "hot-cold").quantile(0.99) <= run(cluster, "round-robin").quantile(0.99) / 3


@pytest.mark.parametrize("cluster", list(CLUSTERS))
def test_never_worse_than_c3(cluster):
    """p99, within 5 %, which is what p99 varies by from seed to seed."""
    assert run(cluster, "hot-cold").quantile(0.99) <= 1.05 * run(cluster, "c3").quantile(0.99)


@pytest.mark.parametrize(
    ("workers", "clients", "slots"),
    [(2, 1, 1), (3, 1, 8), (4, 1, 1), (4, 1, 8), (2, 4, 1), (4, 4, 1), (4, 4, 8)],
)
def test_as_good_as_the_power_of_two_for_few_equal_workers(workers, clients, slots):
    """Of some 10,000 images: p99 within 3 %, p50 and p90 within 5 %, and 1 ms.

    Two workers of one slot under four clients are the one case between 3 and 5 %: each client
    asks seldom, so that the reports it goes by are older than a request takes.
    """
    cluster = Scenario(
        clients=clients,
        speeds=(1.0,) * workers,
        slots=slots,
        duration_s=4.0 + 10_000 * 0.08 / (0.7 * slots * workers),
    )
    ours, other = (
        simulate(replace(cluster, routing=RoutingConfig(policy=policy)))
        for policy in ("hot-cold", "power-of-two")
    )
    for share, most in ((0.5, 1.05), (0.9, 1.05), (0.99, 1.03)):
        assert ours.quantile(share) <= most * other.quantile(share) + 0.001


def test_no_errors_to_1_27_of_capacity():
    """Capacity is what was paid for; antagonists leave 1.34 of it. Weighted turns fail before."""
    cluster = replace(
        RAMP,
        clients=30,
        speeds=(1.0,) * 30,
        load=(0.75, 1.27),
        duration_s=25.0,
        warmup_s=0.0,
    )
    ours, other = (
        simulate(replace(cluster, routing=RoutingConfig(policy=policy)))
        for policy in ("hot-cold", "round-robin")
    )
    assert ours.errors == 0
    assert ours.quantile(0.999) < 2.0
    assert other.errors > 0


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


@pytest.mark.parametrize("clients", [1, 10])
def test_a_slowed_worker_is_left_and_found_again(clients):
    """One of four at a tenth for 50 s: p99 within 1.5 x of the other three alone; its share under
    5 % of a quarter from 5 s on, and back to 0.8 of it or more 30 s after its recovery.
    """
    result = simulate(replace(SLOWED, clients=clients))
    alone = replace(SLOWED, clients=clients, speeds=(1.0,) * 3, load=0.5 * 4 / 3, events=())
    assert result.quantile(0.99) <= 1.5 * simulate(alone).quantile(0.99)
    assert result.share(0, 25, 70) < 0.05 / 4
    assert result.share(0, 100, 120) > 0.8 / 4


def test_the_same_seed_gives_the_same_result():
    cluster = replace(SPREAD, duration_s=5.0)
    one, two = simulate(cluster), simulate(cluster)
    assert (one.latencies, one.sent) == (two.latencies, two.sent)
    assert one.latencies != simulate(replace(cluster, seed=2)).latencies
