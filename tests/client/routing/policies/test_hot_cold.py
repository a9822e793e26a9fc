"""Hot-cold: its rule written plainly, workers that tenants share, and what no worker reports."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from tests.support.examples import examples

from fingerpost.client.routing import (
    Balancer,
    Candidate,
    HotColdConfig,
    Outcome,
    Pick,
    RoutingConfig,
    make_policy,
)
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Snapshot,
    WorkerState,
)

M = ModelReference("m")


def balancer_of(count: int, weights: Sequence[int] = ()) -> Balancer:
    """A balancer that does not explore, of workers `w0000` and so on, of weight 1 by default."""
    config = RoutingConfig(hot_cold=HotColdConfig(exploration_rate=0.0))
    models = (ModelInfo(name="m", versions=("1",)),)
    workers = [
        Instance(
            id=f"w{n:04}",
            service="m",
            host="10.0.0.1",
            ports={"http": 1 + n},
            models=models,
            weight=weights[n] if weights else 1,
        )
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


def plainly(known: Sequence[Candidate], now: float, start: int) -> Candidate:
    """What `HotCold` picks, in the words of its docstring; `start` decides between equals."""
    config = HotColdConfig()
    count = len(known)
    loads = [
        (each.backlog if now - each.load_report_at <= 1.0 else each.local_requests_per_slot)
        / each.weight
        for each in known
    ]
    limit = sorted(loads)[round(config.hot_quantile * (count - 1))]
    times = sorted(each.expected_s_per_mb for each in known)
    outlier_s = config.outlier_factor * times[2 * (count - 1) // 3] or inf
    costs = []
    for each, load in zip(known, loads, strict=True):
        report = each.load_report
        behind = 1 + 1 / report.slots if report is not None and report.alone_s else 2
        cost = each.compute_s_per_mb * (1 + load + behind * load * load) + each.upload_s_per_mb
        ratio = max(1.0, each.expected_s_per_mb / outlier_s)
        cold = load <= limit and each.suspect_until <= now
        costs.append(cost * (ratio * ratio) if cold else inf)
    near = min(costs) * config.cost_tolerance
    turn = [*range(start, count), *range(start)]
    return known[min((n for n in turn if costs[n] <= near), key=lambda n: loads[n])]


FIGURES = st.tuples(
    st.integers(0, 6),  # rif
    st.integers(1, 4),  # slots
    st.sampled_from([0.0, 0.01, 0.011, 0.02, 0.08, 0.5]),  # seconds a megabyte
    st.sampled_from([None, 0.0, 0.5, 3.0]),  # the wait by the worker's forecast, in images
    st.sampled_from([10.0, 10.9, 11.5]),  # when it reported
    st.sampled_from([None, Outcome.FAILED, Outcome.ANSWERED]),  # a request of this client before
    st.integers(1, 3),  # weight
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(FIGURES, min_size=2, max_size=20), st.integers(0, 2**32), st.data())
def test_it_picks_what_its_rule_says_in_plain_words(figures, seed, data):
    count = len(figures)
    balancer = balancer_of(count, [each[6] for each in figures])
    rng, now = random.Random(seed), 11.5
    for at in (10.0, 10.9, 11.5):
        for n, (rif, slots, s_per_mb, wait, reported_at, outcome, _) in enumerate(figures):
            if reported_at != at:
                continue
            endpoint = balancer.endpoints[n]
            forecast = {} if wait is None else {"alone_s": 0.02, "expected_s": 0.02 * (1 + wait)}
            report = LoadReport(
                rif=rif, slots=slots, state=WorkerState.READY, boot_id=1, seq=1,
                latency_per_cost_s=s_per_mb, **forecast,
            )  # fmt: skip
            balancer.reported(endpoint, report, at, probed=True)
            if outcome is not None:
                endpoint.dispatched(at)
                made = Pick(balancer, endpoint, at, trial=False)
                made.release(outcome, now=at + 0.1, rng=rng, sent_mb=1.0, worker_s=0.06)
    for step in range(data.draw(st.integers(1, 4))):
        known = list(balancer.endpoints)
        if count > 16:  # the newest 16 reports that are at most a second old
            fresh = [each for each in known if now - each.load_report_at <= 1.0]
            known = sorted(fresh, key=lambda each: each.load_report_at)[-16:]
            if len(known) < 2 or step:
                return  # the power of two choices; and a pick removes a report
        start = int(random.Random(step).random() * len(known))
        expected = plainly(known, now, start)
        made = balancer.pick(M, tried=(), now=now, rng=random.Random(step))
        assert isinstance(made, Pick)
        assert made.endpoint is expected


@pytest.mark.parametrize("count", [4, 17])
def test_figures_without_measure_do_not_end_a_client(count):
    """What one worker reports, wrong or hostile, is no error of the images for the others."""
    balancer, rng = balancer_of(count), random.Random(1)
    for n in reversed(range(count)):
        report = LoadReport(
            rif=1 if n else 2**53 - 1, slots=1, state=WorkerState.READY, boot_id=1, seq=1,
            latency_per_cost_s=0.01 if n else 1e300, expected_s=0.02 if n else 1e300,
            alone_s=0.01 if n else 1e-300,
        )  # fmt: skip
        balancer.reported(balancer.endpoints[n], report, 10.0, probed=True)
    for endpoint in balancer.endpoints[1:]:
        endpoint.suspect(10.0)
    for _ in range(20):
        made = balancer.pick(M, tried=(), now=10.1, rng=rng)
        assert isinstance(made, Pick)
        made.release(Outcome.ANSWERED, now=10.1, rng=rng, sent_mb=1.0)


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
