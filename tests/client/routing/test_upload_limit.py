"""How many bytes may be on their way to a worker before deadlines pass."""

from __future__ import annotations

from math import inf

import pytest
from msgspec import structs
from tests.support.balancers import DIGITS, RNG, balancer_of, report

from fingerpost.client.routing import Outcome, Pick, RetryAt
from fingerpost.client.routing.upload_limit import UploadLimit

MB_PER_S = 2.5


def known(uploads: int = 20) -> UploadLimit:
    """After so many images of 0.1 MB, one after another, on a link of 20 Mbit/s."""
    limit = UploadLimit()
    for number in range(uploads):
        began = number * 0.05
        limit.dispatched(0.1, began)
        limit.answered(0.1, began, limit.ends_at, began + 0.045, worker_s=0.005)
    return limit


def test_before_an_answer_a_megabyte_may_be_on_its_way_and_one_image_of_any_size():
    limit = UploadLimit()
    assert limit.allows(50.0, 1.0, 0.0)
    limit.dispatched(0.6, 0.0)
    assert limit.allows(0.4, 1.0, 0.0)
    assert not limit.allows(0.5, 1.0, 0.0)
    assert not limit.hopeless(0.5, 0.1)


def test_what_is_on_its_way_gets_half_of_the_time_left():
    limit = known()
    began = 0
    while limit.allows(0.1, 2.0, 1.0):
        limit.dispatched(0.1, 1.0)
        began += 1
    assert began == pytest.approx(0.5 * 2.0 * MB_PER_S / 0.1, abs=1)
    assert not limit.allows(0.1, 0.5, 1.0)
    assert limit.allows(0.1, 4.0, 1.0)


def test_the_link_goes_on_without_answers_which_a_batch_brings_late():
    limit = known()
    for _ in range(25):
        limit.dispatched(0.1, 1.0)
    at = limit.allowed_at(0.1, 2.0, 1.0)
    assert 1.0 < at < 1.2
    assert limit.allows(0.1, 2.0 - (at - 1.0), at + 0.01)
    assert limit.allows(0.1, 0.2, 2.0)


def test_an_image_without_the_time_for_its_upload_is_hopeless():
    limit = known()
    assert limit.hopeless(0.1, 0.3)
    assert not limit.hopeless(0.1, 0.4)
    assert limit.hopeless(1.0, 3.0)


def test_with_nothing_on_its_way_one_image_is_allowed_whatever_was_measured():
    limit = known()
    assert limit.allows(0.1, 0.001, 1.0)


def test_uploads_at_the_same_time_count_once():
    limit = UploadLimit()
    for _ in range(10):
        limit.dispatched(0.1, 0.0)
    for _ in range(10):  # all end together, as shares of one link do
        limit.answered(0.1, 0.0, 0.0, 0.4, worker_s=0.0)
    limit.dispatched(0.1, 5.0)
    assert limit.ends_at - 5.0 == pytest.approx(0.1 / MB_PER_S, rel=0.01)


def test_images_that_are_cut_off_are_samples_of_a_slower_link():
    limit = known()
    for _ in range(25):
        limit.dispatched(0.1, 10.0)
    ends_at = limit.ends_at
    assert not limit.hopeless(0.1, 2.0)
    for _ in range(5):
        limit.late(0.1, 10.0, ends_at, 30.0)
    assert limit.hopeless(0.1, 2.0)
    assert not limit.allows(0.1, 0.5, 30.0)


def test_a_slow_model_is_not_a_slow_link():
    limit = UploadLimit()
    limit.dispatched(0.1, 0.0)
    limit.answered(0.1, 0.0, 0.0, 10.0, worker_s=9.999)
    assert all(limit.allows(0.1, 1.0, 10.0) or limit.dispatched(0.1, 10.0) for _ in range(100))


def test_a_server_that_does_not_say_its_time_has_no_limit():
    limit = UploadLimit()
    for _ in range(2):
        limit.dispatched(9.0, 0.0)
    limit.answered(9.0, 0.0, 0.0, 10.0, worker_s=None)
    assert limit.allows(9.0, 0.001, 10.0)


def send(balancer, now: float, *, left_s: float = 2.0):
    return balancer.pick(DIGITS, tried=(), now=now, rng=RNG, mb=0.1, deadline=now + left_s)


def test_images_wait_for_a_link_and_those_that_would_be_late_do_not():
    balancer = balancer_of("a")
    first = send(balancer, 0.0)
    assert isinstance(first, Pick)
    first.release(Outcome.ANSWERED, now=0.04, rng=RNG, sent_mb=0.1, worker_s=0.0)
    picks = [send(balancer, 1.0) for _ in range(40)]
    waits = picks[-1]
    assert isinstance(waits, RetryAt)
    assert waits.overloaded
    assert waits.full
    assert 1.0 < waits.until < 1.3
    late = send(balancer, 1.0, left_s=0.2)
    assert isinstance(late, RetryAt)
    assert late.until == inf
    assert not late.full


def test_another_worker_is_picked_while_one_link_is_full():
    balancer = balancer_of("a", "b")
    for _ in range(8):
        pick = send(balancer, 0.0)
        assert isinstance(pick, Pick)
        pick.release(Outcome.ANSWERED, now=0.04, rng=RNG, sent_mb=0.1, worker_s=0.0)
    full, free = balancer.endpoints
    while full.may_upload(0.1, 3.0, 1.0):
        full.dispatched(1.0, 0.1)
    pick = send(balancer, 1.0)
    assert isinstance(pick, Pick)
    assert pick.endpoint is free


def test_what_the_worker_needs_is_not_left_for_the_upload():
    balancer = balancer_of("a")
    pick = send(balancer, 0.0)
    assert isinstance(pick, Pick)
    pick.release(
        Outcome.ANSWERED,
        now=0.04,
        rng=RNG,
        sent_mb=0.1,
        worker_s=0.0,
        load_report=structs.replace(report(), expected_s=1.9, alone_s=0.1),
    )
    assert isinstance(send(balancer, 0.05), Pick)
    late = send(balancer, 0.05)
    assert isinstance(late, RetryAt)
    assert late.until == inf
