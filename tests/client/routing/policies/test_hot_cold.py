"""Hot-cold at workers that tenants share."""

from __future__ import annotations

import random

import pytest
from msgspec import UNSET

from fingerpost.client.routing import Balancer, HotColdConfig, Pick, RoutingConfig, make_policy
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Snapshot,
    WorkerState,
)

M = ModelReference("m")


def balancer_of(count: int) -> Balancer:
    """A balancer that does not explore, of workers `w0000` and so on."""
    config = RoutingConfig(hot_cold=HotColdConfig(exploration_rate=0.0))
    models = (ModelInfo(name="m", versions=("1",)),)
    workers = [
        Instance(id=f"w{n:04}", service="m", host="10.0.0.1", ports={"http": 1 + n}, models=models)
        for n in range(count)
    ]
    found = Balancer(make_policy(config), config)
    found.update(
        Snapshot(service="m", instances=tuple(workers), known=True, index=1, taken_at=0.0), 0.0
    )
    return found


def shared_report(balancer: Balancer, index: int, *, wait: float, now: float, **more) -> None:
    """A report of a worker that takes 10 ms for an image, after a wait of so many images."""
    load_report = LoadReport(
        rif=9,
        slots=4,
        state=WorkerState.READY,
        boot_id=1,
        seq=int(now * 1000) + 1,
        expected_s=0.01 * (1 + wait),
        alone_s=0.01,
        **more,
    )
    balancer.reported(balancer.endpoints[index], load_report, now, probed=True)


@pytest.mark.parametrize(("tenants", "picked"), [(UNSET, 0), (3, 2)])
@pytest.mark.parametrize("count", [4, 17])
def test_of_workers_that_tenants_share_only_fresh_reports_count(tenants, picked, count):
    balancer = balancer_of(count)
    for index in reversed(range(count)):  # a pool keeps the newest 16
        shared_report(balancer, index, wait=1 if index == 0 else 5, now=10.0, tenants=tenants)
    for index in (1, 2, 3):
        shared_report(balancer, index, wait=6 - index, now=10.1, tenants=tenants)
    shared_report(balancer, 2, wait=2, now=10.102, tenants=tenants)
    made = balancer.pick(M, tried=(), now=10.105, rng=random.Random(1))
    assert isinstance(made, Pick)
    assert made.endpoint.id == f"w{picked:04}"


def test_a_much_quicker_worker_counts_with_an_older_report_and_all_do_without_two_fresh_ones():
    balancer, rng = balancer_of(4), random.Random(1)
    quick = 0.1  # seconds a megabyte, a quarter of the others'
    for index in range(4):
        s_per_mb = 0.4 if index else quick
        shared_report(
            balancer, index, wait=index, now=10.0, tenants=2, latency_per_cost_s=s_per_mb * 2.25
        )
    shared_report(balancer, 3, wait=3, now=10.1, tenants=2, latency_per_cost_s=0.9)
    first = balancer.pick(M, tried=(), now=10.105, rng=rng)
    assert isinstance(first, Pick)
    assert first.endpoint.id == "w0000"  # one fresh report is no choice
    shared_report(balancer, 2, wait=2, now=10.101, tenants=2, latency_per_cost_s=0.9)
    second = balancer.pick(M, tried=(), now=10.105, rng=rng)
    assert isinstance(second, Pick)
    assert second.endpoint.id == "w0000"
