"""Each policy on a table of loads, and what a pick costs."""

from __future__ import annotations

import random
import time
from collections import Counter

import msgspec
import pytest

from fingerpost.client.routing import (
    POLICIES,
    Balancer,
    HotColdConfig,
    Outcome,
    Pick,
    RoutingConfig,
    make_policy,
)
from fingerpost.errors import ConfigurationError
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Snapshot,
    WorkerState,
)

M = ModelReference("m")


def balancer_of(count: int, policy: str, **hot_cold) -> Balancer:
    config = RoutingConfig(policy=policy, hot_cold=HotColdConfig(**hot_cold))
    instances = tuple(
        Instance(
            id=f"w{index:04}",
            service="m",
            host="10.0.0.1",
            ports={"http": 1 + index},
            models=(ModelInfo(name="m", versions=("1",)),),
        )
        for index in range(count)
    )
    balancer = Balancer(make_policy(config), config)
    balancer.update(
        Snapshot(service="m", instances=instances, known=True, index=1, taken_at=0.0), 0.0
    )
    return balancer


def report(
    balancer: Balancer, index: int, *, rif: int = 0, latency: float = 1.0, now: float = 0.0, seq=1
):
    load_report = LoadReport(
        rif=rif,
        slots=4,
        state=WorkerState.READY,
        boot_id=1,
        seq=seq,
        latency_per_cost_s=latency,
    )
    balancer.reported(balancer.endpoints[index], load_report, now, probed=True)


def shares(
    balancer: Balancer, rng: random.Random, picks: int = 300, now: float = 0.0, **more
) -> Counter:
    """How often each worker is picked, if each answer comes before the next pick."""
    found: Counter = Counter()
    for _ in range(picks):
        made = balancer.pick(M, tried=(), now=now, rng=rng, **more)
        assert isinstance(made, Pick)
        found[made.endpoint.id] += 1
        made.release(Outcome.ABANDONED, now=now, rng=rng)
    return found


def test_an_unknown_policy_raises_an_error_with_the_names_of_all():
    with pytest.raises(ConfigurationError, match=r"'fastest': use one of hot-cold, power-of-two"):
        make_policy(RoutingConfig(policy="fastest"))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("count", [1, 2, 3, 17, 100])
def test_every_policy_uses_all_equal_workers(policy, count):
    balancer, rng = balancer_of(count, policy), random.Random(3)
    seen: Counter = Counter()
    for step in range(40 * count):
        now = step / (10 * count)
        for endpoint in balancer.to_probe(M, 2, now, rng):
            report(balancer, int(endpoint.id[1:]), now=now, seq=step + 1)
        made = balancer.pick(M, tried=(), now=now, rng=rng)
        assert isinstance(made, Pick)
        seen[made.endpoint.id] += 1
        made.release(Outcome.ANSWERED, now=now, rng=rng)
    assert len(seen) == count
    assert max(seen.values()) < 40 * 2.5


def test_the_fastest_of_the_cold_wins():
    balancer = balancer_of(4, "hot-cold", exploration_rate=0.0)
    for index, latency in enumerate((1.0, 4.0, 8.0, 16.0)):
        report(balancer, index, latency=latency)
    assert set(shares(balancer, random.Random(1))) == {"w0000"}


def test_of_nearly_equal_costs_load_decides():
    balancer = balancer_of(3, "hot-cold", exploration_rate=0.0)
    report(balancer, 0, latency=1.0, rif=1)
    report(balancer, 1, latency=1.2)
    report(balancer, 2, latency=1.1)
    found = shares(balancer, random.Random(1))
    assert set(found) == {"w0001", "w0002"}
    assert min(found.values()) > 100


@pytest.mark.parametrize(("rif", "picked"), [(1, "w0000"), (4, "w0001")])
def test_load_is_a_part_of_the_cost(rif, picked):
    """With a quarter of its slots taken the faster costs 0.3 x 1.375, with all of them 0.3 x 7."""
    balancer = balancer_of(5, "hot-cold", exploration_rate=0, cost_tolerance=1)
    for index, (there, latency) in enumerate([(rif, 0.3), (0, 0.5), *[(8, 1.0)] * 3]):
        report(balancer, index, rif=there, latency=latency)
    assert set(shares(balancer, random.Random(1), picks=1)) == {picked}


def forecast(balancer: Balancer, index: int, expected_s: float, alone_s: float, **more) -> None:
    """A report of one second a megabyte for each second that an image takes where it is alone."""
    load_report = LoadReport(
        rif=more.pop("rif", 0),
        slots=more.pop("slots", 1),
        state=WorkerState.READY,
        boot_id=1,
        seq=1,
        latency_per_cost_s=alone_s,
        expected_s=expected_s,
        alone_s=alone_s,
    )
    balancer.reported(balancer.endpoints[index], load_report, 0.0, probed=True, **more)


@pytest.mark.parametrize(("expected_s", "picked"), [(0.013, "w0000"), (0.018, "w0001")])
def test_the_wait_counts_and_not_the_places_in_a_batch(expected_s, picked):
    """One image at the faster, of 32 places. Time x (1 + b + 2 b^2), b the wait / the time alone.

    10 ms and 3 ms of waiting: 14.8 ms, 8 ms of waiting: 30.8 ms; the other: 20 ms.
    """
    balancer = balancer_of(5, "hot-cold", exploration_rate=0, cost_tolerance=1)
    forecast(balancer, 0, expected_s, 0.010, rif=1, slots=32)
    for index, (waits_s, alone_s) in enumerate([(0, 0.020), *[(1, 0.5)] * 3], 1):
        forecast(balancer, index, waits_s + alone_s, alone_s)
    assert set(shares(balancer, random.Random(1), picks=1)) == {picked}


def test_what_was_sent_since_the_forecast_waits_as_well():
    balancer, rng = balancer_of(1, "hot-cold"), random.Random(1)
    endpoint = balancer.endpoints[0]
    forecast(balancer, 0, 0.015, 0.010, slots=2, unseen=1)
    assert endpoint.backlog == pytest.approx(0.5 + 1 / 2)
    made = balancer.pick(M, tried=(), now=0.0, rng=rng)
    assert endpoint.backlog == pytest.approx(0.5 + 2 / 2)
    assert isinstance(made, Pick)
    made.release(Outcome.ANSWERED, now=0.04, rng=rng, sent_mb=1.0, worker_s=0.04)
    assert endpoint.backlog == pytest.approx(0.5 + 1 / 2)
    assert endpoint.compute_s_per_mb == pytest.approx(0.010)  # reported; its own sample is 0.02


def test_a_report_without_a_forecast_costs_what_it_did():
    """Workers of an older release: time x (1 + 6 (requests per slot)^2)."""
    balancer = balancer_of(1, "hot-cold")
    endpoint = balancer.endpoints[0]
    for rif in (0, 1, 4, 9):
        report(balancer, 0, rif=rif, seq=rif + 1)
        b, load = endpoint.backlog, endpoint.requests_per_slot
        assert load == rif / 4
        assert 1 + b + 2 * b * b == pytest.approx(1 + 6 * load * load)


def test_a_worker_that_has_just_reported_is_not_probed():
    balancer, rng = balancer_of(3, "hot-cold"), random.Random(1)
    report(balancer, 1, now=1.0)
    assert {each.id for each in balancer.to_probe(M, 3, 1.005, rng)} == {"w0000", "w0002"}
    assert {each.id for each in balancer.to_probe(M, 3, 1.011, rng)} == {"w0000", "w0001", "w0002"}


def test_the_hot_are_left_out_whatever_their_latency():
    balancer = balancer_of(8, "hot-cold", exploration_rate=0.0)
    report(balancer, 0, latency=0.1, rif=50)
    for index in range(1, 8):
        report(balancer, index, latency=2.0, rif=4)
    assert "w0000" not in shares(balancer, random.Random(1))


def test_an_old_report_of_load_is_not_used():
    balancer = balancer_of(2, "hot-cold", exploration_rate=0.0)
    report(balancer, 0, rif=50, latency=50 / 4)
    report(balancer, 1, rif=0, latency=1.0)
    assert set(shares(balancer, random.Random(1), now=0.5)) == {"w0001"}
    assert set(shares(balancer, random.Random(1), now=1.5)) == {"w0000", "w0001"}


def test_a_failure_is_never_a_low_latency():
    """A worker that failed in a millisecond is not cold for 5 s, though it is idle and was fast."""
    balancer, rng = balancer_of(3, "hot-cold", exploration_rate=0.0), random.Random(1)
    for index, latency in enumerate((0.1, 1.0, 1.0)):
        report(balancer, index, latency=latency)
    made = balancer.pick(M, tried=(), now=0.0, rng=rng)
    assert isinstance(made, Pick)
    assert made.endpoint.id == "w0000"
    made.release(Outcome.FAILED, now=0.001, rng=rng, sent_mb=1.0)
    assert made.endpoint.expected_s_per_mb == 0.1
    assert set(shares(balancer, rng, now=4.9)) == {"w0001", "w0002"}
    assert set(shares(balancer, rng, now=5.1)) == {"w0000"}


def test_a_slow_idle_worker_is_tried_now_and_then():
    """Once in 256 picks; after as long as it was in use before, and 5 s at most."""
    balancer, rng = balancer_of(2, "hot-cold"), random.Random(1)
    report(balancer, 0, latency=1.0)
    report(balancer, 1, latency=100.0)

    def tried(now: float, picks: int) -> bool:
        return shares(balancer, rng, picks, now=now)["w0001"] == 1

    assert not tried(0.0, 255)
    assert tried(1.0, 1)  # the first time
    assert tried(1.125, 256)
    assert not tried(1.24, 2560)
    assert tried(1.25, 1)
    assert not tried(1.49, 2560)
    assert tried(1.5, 1)
    for now in (2.0, 3.0, 5.0, 9.0):
        assert tried(now, 256)
    assert not tried(13.9, 2560)
    assert tried(14.0, 1)


@pytest.mark.parametrize(("slow", "picked"), [(4.0, "w0003"), (5.0, "w0000")])
def test_an_outlier_is_used_only_while_others_have_full_queues(slow, picked):
    """Others of load 1 cost 7. Up to 4 times as slow it costs its time; 5.0 costs 5 x 1.25^2."""
    balancer = balancer_of(4, "hot-cold", exploration_rate=0, cost_tolerance=1, hot_quantile=1)
    for index in range(3):
        report(balancer, index, rif=4, latency=1.0 + index / 100)
    report(balancer, 3, latency=slow)
    assert set(shares(balancer, random.Random(1), picks=1)) == {picked}


def test_more_than_a_third_of_the_workers_are_small_rather_than_ill():
    """Two of four are idle and six times as slow. They cost their time; one alone, six x 1.5^2."""
    balancer = balancer_of(4, "hot-cold", exploration_rate=0, cost_tolerance=1, hot_quantile=1)
    for index, latency in enumerate((1.0, 1.01, 6.0, 6.1)):
        report(balancer, index, rif=4 * (latency < 2), latency=latency)
    assert set(shares(balancer, random.Random(1), picks=1)) == {"w0002"}


def test_uploads_share_a_link():
    """The time on the network is multiplied by the requests: of two equal workers the emptier link.

    32 slots, and answers at once; five uploads at one, four at the other, 0.1 s for each of them.
    """
    balancer, rng = (
        balancer_of(2, "hot-cold", exploration_rate=0, cost_tolerance=1, hot_quantile=1),
        random.Random(1),
    )
    for endpoint, there in zip(balancer.endpoints, (5, 4), strict=True):
        load_report = LoadReport(rif=0, slots=32, state=WorkerState.READY, boot_id=1, seq=1)
        balancer.reported(endpoint, load_report, 0.0, probed=True)
        others = [each.id for each in balancer.endpoints if each is not endpoint]
        made = [balancer.pick(M, tried=others, now=0.0, rng=rng) for _ in range(there)]
        for pick in made:
            assert isinstance(pick, Pick)
            pick.release(Outcome.ANSWERED, now=0.1 * there, rng=rng, sent_mb=1.0, worker_s=0.0)
        full = msgspec.structs.replace(load_report, rif=there, seq=2)
        balancer.reported(endpoint, full, 0.5, probed=True)
    assert set(shares(balancer, rng, picks=1, now=0.5)) == {"w0001"}


def test_requests_sent_while_a_probe_was_under_way_count():
    balancer, rng = balancer_of(1, "hot-cold"), random.Random(1)
    endpoint = balancer.endpoints[0]
    balancer.pick(M, tried=(), now=0.0, rng=rng)
    load_report = LoadReport(rif=3, slots=4, state=WorkerState.READY, boot_id=1, seq=1)
    balancer.reported(endpoint, load_report, 0.1, probed=True, unseen=1)
    assert endpoint.requests_per_slot == 1.0


def test_the_queue_that_an_image_met_is_not_in_the_expected_time():
    """Four at once at a worker of one slot take 0.1 to 0.4 s each; it reports as many."""
    balancer, rng = balancer_of(1, "hot-cold"), random.Random(1)
    endpoint = balancer.endpoints[0]
    load_report = LoadReport(rif=0, slots=1, state=WorkerState.READY, boot_id=1, seq=1)
    balancer.reported(endpoint, load_report, 0.0, probed=True)
    made = [balancer.pick(M, tried=(), now=0.0, rng=rng) for _ in range(4)]
    for number, pick in enumerate(made, 1):
        assert isinstance(pick, Pick)
        pick.release(Outcome.ANSWERED, now=number / 10, rng=rng, sent_mb=1.0, worker_s=number / 10)
    assert endpoint.expected_s_per_mb == pytest.approx(0.1)
    later = msgspec.structs.replace(load_report, rif=3, seq=2, latency_per_cost_s=0.15)
    balancer.reported(endpoint, later, 0.4, probed=True)
    assert endpoint.expected_s_per_mb == pytest.approx(0.05)


def test_expected_time_is_upload_and_answer_and_sizes_do_not_blur_it():
    """Thumbnails and photographs at the same speed give the same seconds a megabyte."""
    balancer, rng = balancer_of(1, "hot-cold"), random.Random(1)
    endpoint = balancer.endpoints[0]
    for number in range(400):
        mb = 0.01 if number % 2 else 1.0
        made = balancer.pick(M, tried=(), now=float(number), rng=rng)
        assert isinstance(made, Pick)
        took_s = 0.02 + 0.1 * mb
        made.release(
            Outcome.ANSWERED, now=number + took_s, rng=rng, sent_mb=mb, worker_s=0.5 * took_s
        )
    assert endpoint.expected_s_per_mb == pytest.approx(0.072 / 0.505, rel=0.5)
    report(balancer, 0, latency=0.01, now=400.0)
    upload = endpoint.expected_s_per_mb - 0.01
    assert 0 < upload < 0.072 / 0.505


def test_weighted_round_robin_goes_by_capacity():
    balancer = balancer_of(3, "weighted-round-robin")
    for index, latency in enumerate((1.0, 2.0, 4.0)):
        report(balancer, index, latency=latency)
    found = shares(balancer, random.Random(1), 700)
    assert [found[f"w000{index}"] for index in range(3)] == pytest.approx([400, 200, 100], abs=2)


def test_without_probes_a_large_fleet_is_not_narrowed_to_the_workers_in_use():
    balancer, rng = balancer_of(100, "hot-cold"), random.Random(1)
    seen: Counter = Counter()
    for step in range(4000):
        made = balancer.pick(M, tried=(), now=step / 1000, rng=rng)
        assert isinstance(made, Pick)
        seen[made.endpoint.id] += 1
        load = LoadReport(rif=0, slots=4, state=WorkerState.READY, boot_id=1, seq=step + 1)
        made.release(Outcome.ANSWERED, now=step / 1000, rng=rng, load_report=load)
    assert len(seen) == 100
    assert max(seen.values()) < 80


def test_c3_goes_round_queues():
    balancer = balancer_of(2, "c3")
    report(balancer, 0, latency=1.0, rif=8)
    report(balancer, 1, latency=3.0)
    assert set(shares(balancer, random.Random(1))) == {"w0001"}


def test_the_same_key_stays_and_only_a_lost_workers_keys_move():
    balancer, rng = balancer_of(10, "hot-cold"), random.Random(1)
    owner = {}
    for key in map(str, range(500)):
        (owner[key],) = shares(balancer, rng, 3, key=key)
    counts = Counter(owner.values())
    assert len(counts) == 10
    assert max(counts.values()) < 90
    gone = "w0003"
    for key, before in owner.items():
        made = balancer.pick(M, tried={gone}, now=0.0, rng=rng, key=key)
        assert isinstance(made, Pick)
        assert (made.endpoint.id == before) == (before != gone)
        made.release(Outcome.ABANDONED, now=0.0, rng=rng)


@pytest.mark.alone
@pytest.mark.parametrize("policy", POLICIES)
def test_a_pick_of_a_thousand_is_quick(policy):
    """The goal is 10 us; the bound is loose, for machines that do other things too."""
    balancer, rng = balancer_of(1000, policy), random.Random(1)
    best_s, seq = 1.0, 0
    for batch in range(10):
        spent_s = 0.0
        for step in range(100):
            now = batch + step / 100
            for endpoint in balancer.to_probe(M, 2, now, rng):
                seq += 1
                report(balancer, int(endpoint.id[1:]), latency=rng.random(), now=now, seq=seq)
            began = time.perf_counter()
            made = balancer.pick(M, tried=(), now=now, rng=rng)
            spent_s += time.perf_counter() - began
            assert isinstance(made, Pick)
            made.release(Outcome.ANSWERED, now=now, rng=rng)
        best_s = min(best_s, spent_s / 100)
    assert best_s < 50e-6
