"""How many requests a worker accepts, learned from its refusals."""

from __future__ import annotations

import random
from math import inf

import pytest
from tests.support.balancers import DIGITS, RNG, balancer_of, pick
from tests.support.optional import not_none

from fingerpost.client.routing import Outcome, RetryAt
from fingerpost.client.routing.overload_limit import OverloadLimit


def test_there_is_no_limit_before_a_refusal():
    limit = OverloadLimit()
    limit.answered(5, 1.0)
    assert limit.limit == inf
    assert limit.allows(10_000)


def test_it_becomes_what_was_accepted_less_a_tenth_once_a_round_trip():
    limit = OverloadLimit()
    for left in range(399, 99, -1):  # of 400 sent together, 300 come back refused
        limit.refused(left, picked_at=1.0, now=1.1)
    assert limit.limit == 100
    assert limit.allows(99)
    assert not limit.allows(100)
    limit.refused(100, picked_at=1.2, now=1.3)
    assert limit.limit == 90


def test_answers_raise_it_by_one_in_a_round_trip_and_only_where_it_is_reached():
    limit = OverloadLimit()
    limit.refused(10, picked_at=1.0, now=1.1)
    assert limit.limit == 9
    for _ in range(9):
        limit.answered(9, 1.2)
    assert limit.limit == pytest.approx(10, abs=0.1)
    reached = limit.limit
    limit.answered(3, 1.2)
    assert limit.limit == reached


def test_one_request_is_always_allowed_and_the_limit_is_forgotten():
    limit = OverloadLimit()
    limit.refused(0, picked_at=1.0, now=1.1)
    assert limit.allows(0)
    limit.answered(1, 31.0)
    assert limit.limit < inf
    limit.answered(1, 31.2)
    assert limit.limit == inf


def test_a_client_with_none_there_comes_back_when_the_worker_says():
    limit, rng = OverloadLimit(), random.Random(1)
    limit.refused(3, picked_at=1.0, now=1.1)
    assert limit.pause_s(2.0, 3, rng) == 0  # the answers to the three tell
    assert limit.pause_s(None, 0, rng) is None
    waits = [not_none(limit.pause_s(2.0, 0, rng)) for _ in range(100)]
    assert 2.0 <= min(waits) < 2.1 < 2.4 < max(waits) <= 2.5
    for _ in range(10):
        limit.refused(0, picked_at=1.0, now=1.1)
    assert not_none(limit.pause_s(0.0, 0, rng)) >= 0.02  # never a loop without a pause


def test_who_would_exceed_the_limit_of_all_workers_waits_for_an_answer():
    balancer = balancer_of("a")
    picks = [pick(balancer) for _ in range(8)]
    for each in picks[4:]:
        each.release(Outcome.OVERLOADED, now=0.1, rng=RNG, retry_after_s=1.0, backpressure=True)
    made = balancer.pick(DIGITS, tried=(), now=0.1, rng=RNG)
    assert isinstance(made, RetryAt)
    assert made.overloaded
    assert made.full
    picks[0].release(Outcome.ANSWERED, now=0.2, rng=RNG)
    assert made.until > 0.2
    assert pick(balancer, 0.2).endpoint.id == "a"


def test_a_full_worker_leaves_the_images_to_the_others():
    balancer = balancer_of("a", "b")
    first, second = pick(balancer, but={"b"}), pick(balancer, but={"b"})
    second.release(Outcome.OVERLOADED, now=0.1, rng=RNG, retry_after_s=9.0, backpressure=True)
    assert {pick(balancer, 0.1).endpoint.id for _ in range(20)} == {"b"}
    first.release(Outcome.ANSWERED, now=0.2, rng=RNG)
    assert pick(balancer, 0.2, but={"b"}).endpoint.id == "a"


def test_a_server_that_limits_rates_is_left_out_for_its_retry_after():
    balancer = balancer_of("a", "b")
    pick(balancer, but={"b"})
    refused = pick(balancer, but={"b"})
    refused.release(Outcome.OVERLOADED, now=0.1, rng=RNG, retry_after_s=9.0)
    assert {pick(balancer, 9.0).endpoint.id for _ in range(20)} == {"b"}
