"""Which workers are asked before an image, and what a worker costs before its first."""

from __future__ import annotations

import random

import pytest
from tests.client.routing.policies.test_hot_cold import M, balancer_of, shared_report

from fingerpost.client.routing import Probing, ProbingConfig
from fingerpost.client.routing.image_size import ImageSize
from fingerpost.registry import LoadReport, WorkerState


def ask(balancer, now, *, count=4, asked=()):
    rng = random.Random(1)
    likely = balancer.likely(M, now, rng)
    found = balancer.to_probe(M, count, now, rng, likely=likely, asked=asked)
    return [each.id for each in found]


def test_those_are_asked_that_the_image_most_likely_goes_to():
    balancer = balancer_of(6)
    for index in range(5):  # w0005 has not said anything, and costs nothing
        shared_report(balancer, index, wait=2 * (4 - index), now=10.0, latency_per_cost_s=1.0)
    assert ask(balancer, 10.011) == ["w0005", "w0004", "w0003", "w0002"]
    assert ask(balancer, 10.011, asked={"w0004"}) == ["w0005", "w0003", "w0002", "w0001"]
    balancer.endpoints[5].suspect(10.0)
    assert ask(balancer, 10.011, count=6)[-1] == "w0005"


def test_what_waited_long_ago_is_done():
    """Four images of 10 ms waited at a quick worker; 50 ms later it is worth asking again."""
    balancer = balancer_of(2)
    shared_report(balancer, 0, wait=4, now=10.0, latency_per_cost_s=1.0)
    shared_report(balancer, 1, wait=0, now=10.0, latency_per_cost_s=1.5)
    assert ask(balancer, 10.011, count=1) == ["w0001"]
    assert ask(balancer, 10.050, count=1) == ["w0000"]


@pytest.mark.parametrize("case", ["no forecast", "shared", "many"])
def test_otherwise_they_are_drawn_at_random(case):
    balancer = balancer_of(17 if case == "many" else 8)
    for index in range(8):
        more = {"tenants": 3} if case == "shared" else {}
        shared_report(balancer, index, wait=index, now=10.0, latency_per_cost_s=1.0, **more)
    if case == "no forecast":
        old = LoadReport(rif=0, slots=1, state=WorkerState.READY, boot_id=1, seq=10**6)
        balancer.reported(balancer.endpoints[0], old, 10.0, probed=True)
    seen = {name for _ in range(8) for name in ask(balancer, 10.02, count=2)}
    assert len(seen) >= 8


def test_no_worker_is_asked_twice_at_once():
    balancer, rng = balancer_of(3), random.Random(1)
    for _ in range(100):  # the deck runs out in the middle of a draw
        found = balancer.to_probe(M, 2, 10.0, rng)
        assert len({each.id for each in found}) == len(found)


def test_all_but_one_of_the_answers_are_waited_for():
    probing = Probing(ProbingConfig())
    assert [probing.answers(asked) for asked in range(6)] == [0, 1, 2, 2, 3, 4]
    assert (probing.ahead(10.0), probing.ahead(10.0, likely=True)) == (3, 4)
    assert probing.on_request(10.0, preceded=4) == 0
    assert probing.on_request(10.0) == 2


def test_a_worker_without_images_yet_costs_what_its_warm_up_took():
    balancer = balancer_of(2)
    shared_report(balancer, 0, wait=0, now=10.0, latency_per_cost_s=0.5 * 9 / 4)
    shared_report(balancer, 1, wait=0, now=10.0)  # 10 ms an image as well
    first, second = balancer.endpoints
    assert second.compute_s_per_mb == pytest.approx(first.compute_s_per_mb)


def test_the_size_of_an_image_is_the_clients_own_once_it_has_sent_one():
    size = ImageSize()
    assert size.mb == 1
    size.told(0.01, 0.5)
    assert size.mb == pytest.approx(0.02)
    size.told(1e300, 1e-300)  # hostile: not a size
    assert size.mb == pytest.approx(0.02)
    size.sent(3.0)
    size.told(0.01, 0.5)
    assert size.mb == pytest.approx(3)
