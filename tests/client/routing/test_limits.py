"""Budget, probing, phases, subsets and slow start: tables, no sleeping."""

from __future__ import annotations

import random
from collections import Counter
from math import inf
from types import SimpleNamespace

import pytest

from fingerpost.client.routing import (
    Budget,
    Phase,
    PhaseClock,
    Probing,
    ProbingConfig,
    RetryConfig,
    SlowStartConfig,
)
from fingerpost.client.routing.slow_start import SlowStart
from fingerpost.client.routing.subset import subset


def test_retries_are_a_fifth_of_the_requests_and_one_a_second():
    budget = Budget(RetryConfig())
    assert sum(budget.spend(0.0, 0) for _ in range(100)) == 10
    for _ in range(100):
        budget.request(1.0, 0)
    assert sum(budget.spend(1.0, 0) for _ in range(100)) == 20


def test_a_budget_is_forgotten_after_its_time():
    budget = Budget(RetryConfig())
    for _ in range(100):
        budget.request(0.0, 0)
    assert sum(budget.spend(5.0, 0) for _ in range(100)) == 30
    assert sum(budget.spend(11.5, 0) for _ in range(100)) == 0, "what was spent still counts"
    assert sum(budget.spend(16.5, 0) for _ in range(100)) == 10


def test_at_most_a_tenth_of_the_bytes_is_sent_again_but_one_image_always():
    budget = Budget(RetryConfig())
    budget.request(0.0, 20_000_000)
    assert budget.spend(0.1, 20_000_000)
    assert not budget.spend(0.2, 20_000_000)
    assert budget.spend(0.2, 0), "a refused connection costs no bytes"
    for _ in range(100):
        budget.request(20.0, 1_000_000)
    assert sum(budget.spend(20.0, 1_000_000) for _ in range(100)) == 10


def test_two_probes_a_request_without_replacement():
    probing, rng = Probing(ProbingConfig()), random.Random(1)
    endpoints = [f"w{index}" for index in range(10)]
    seen: Counter = Counter()
    for step in range(50):
        seen.update(probing.draw(endpoints, probing.on_request(step / 10), rng))
    assert set(seen.values()) == {10}


def test_a_fraction_of_a_probe_is_carried_over():
    probing = Probing(ProbingConfig(probes_per_request=0.25))
    assert sum(probing.on_request(step / 10) for step in range(100)) == 25


def test_no_more_than_200_probes_a_second():
    probing = Probing(ProbingConfig())
    sent = sum(probing.on_request(step / 1000) for step in range(10_000))
    assert sent == pytest.approx(2000, abs=25)


def test_an_idle_client_stops_probing():
    probing = Probing(ProbingConfig())
    assert probing.next_at() == inf
    probing.on_request(10.0)
    times = []
    while (at := probing.next_at()) < inf:
        assert probing.on_timer(at - 0.01) == 0
        assert probing.on_timer(at) == 1
        times.append(at)
    assert times == pytest.approx([10.5 + 0.5 * step for step in range(10)])


def test_a_long_upload_or_old_news_is_worth_a_wait():
    probing = Probing(ProbingConfig())
    assert probing.worth_waiting(0.01, freshest_at=0.0, now=1.5)
    assert not probing.worth_waiting(9.0, freshest_at=1.0, now=1.5), "no round trip known yet"
    probing.answered(0.01)
    assert probing.worth_waiting(0.3, freshest_at=1.0, now=1.5)
    assert not probing.worth_waiting(0.1, freshest_at=1.0, now=1.5)


def test_a_slow_but_moving_upload_is_not_ended():
    clock = PhaseClock(
        0.0,
        deadline=100.0,
        connect_timeout_s=2.0,
        upload_stall_timeout_s=5.0,
        response_timeout_s=10.0,
    )
    assert (clock.phase, clock.expires_at()) == (Phase.CONNECT, 2.0)
    clock.connected(1.0)
    assert (clock.phase, clock.expires_at()) == (Phase.UPLOAD, 6.0)
    for second in range(2, 60):
        clock.progressed(float(second))
        assert clock.expires_at() == second + 5.0
    clock.sent(60.0)
    assert (clock.phase, clock.expires_at()) == (Phase.COMPUTE, 70.0)
    clock.sent(95.0)
    assert clock.expires_at() == 100.0
    assert (clock.left_ms(95.0), clock.left_ms(101.0)) == (5000, 1)


def test_subsets_are_even_and_stay():
    endpoints = [SimpleNamespace(id=f"w{index}", weight=1) for index in range(200)]
    assert subset(endpoints[:64], "c", 64) == endpoints[:64]
    used: Counter = Counter()
    moved = 0
    for number in range(200):
        mine = {each.id for each in subset(endpoints, f"client-{number}", 64)}
        assert len(mine) == 64
        used.update(mine)
        moved += len(mine - {each.id for each in subset(endpoints[1:], f"client-{number}", 64)})
    assert len(used) == 200
    assert max(used.values()) < 1.5 * 64
    assert min(used.values()) > 0.5 * 64
    assert moved == used["w0"], "only those who had the lost one take another"


def test_a_heavier_worker_is_in_more_subsets():
    endpoints = [
        SimpleNamespace(id=f"w{index}", weight=1 + 3 * (index == 0)) for index in range(100)
    ]
    found = [subset(endpoints, f"client-{number}", 10) for number in range(300)]
    times = Counter(each.id for each in [one for mine in found for one in mine])
    assert times["w0"] > 2 * times["w1"]


@pytest.mark.parametrize(("age_s", "share"), [(0.0, 0.1), (15.0, 0.55), (30.0, 1.0), (99.0, 1.0)])
def test_a_new_worker_gets_a_growing_share_of_its_part(age_s, share):
    starting = SlowStart(SlowStartConfig())
    endpoint = SimpleNamespace(new_at=0.0, credit=0.0, credit_at=0)
    admitted = 0
    for _ in range(10_000):
        starting.picks += 1
        admitted += starting.admits(endpoint, 10, age_s)
    assert admitted == pytest.approx(1000 * share, rel=0.01)
