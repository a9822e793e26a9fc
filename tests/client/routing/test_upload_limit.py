"""How many bytes may be on their way to a worker before deadlines pass."""

from __future__ import annotations

import random
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from tests.support.balancers import DIGITS, RNG, balancer_of, report

from fingerpost.client.routing import Outcome, Pick, RetryAt
from fingerpost.client.routing.upload_limit import UploadLimit

MB_PER_S = 2.5


def known(uploads: int = 20) -> UploadLimit:
    """After so many images of 0.1 MB, one after another, on a link of 20 Mbit/s."""
    limit = UploadLimit(0.0)
    for number in range(uploads):
        began = number * 0.05
        limit.dispatched(0.1, began)
        limit.answered(0.1, began, limit.ends_at, began + 0.045, worker_s=0.005)
    return limit


def test_before_an_answer_a_megabyte_may_be_on_its_way_and_one_image_of_any_size():
    limit = UploadLimit(0.0)
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
    assert limit.hopeless(1.0, 1.0)
    assert not limit.hopeless(1.0, 1.1)


def test_with_nothing_on_its_way_one_image_is_allowed_whatever_was_measured():
    limit = known()
    assert limit.allows(0.1, 0.001, 1.0)


def test_uploads_at_the_same_time_count_once():
    limit = UploadLimit(0.0)
    for _ in range(10):
        limit.dispatched(0.1, 0.0)
    for _ in range(10):  # all end together, as shares of one link do
        limit.answered(0.1, 0.0, 0.0, 0.4, worker_s=0.0)
    limit.dispatched(0.1, 5.0)
    assert limit.ends_at - 5.0 == pytest.approx(0.1 / MB_PER_S, rel=0.05)


def test_images_that_are_cut_off_are_samples_of_a_slower_link():
    limit = known()
    for _ in range(25):
        limit.dispatched(0.1, 10.0)
    ends_at = limit.ends_at
    assert not limit.hopeless(0.1, 0.5)
    for _ in range(5):
        limit.late(0.1, 10.0, ends_at, 30.0)
    assert limit.hopeless(0.1, 0.5)
    assert not limit.allows(0.1, 0.5, 30.0)


def test_one_image_that_a_stopped_worker_kept_does_not_condemn_the_link():
    limit = known()
    limit.dispatched(0.1, 10.0)
    limit.answered(0.1, 10.0, limit.ends_at, 20.0, worker_s=0.0)
    assert not limit.hopeless(0.1, 3.0)


def test_a_fast_link_that_becomes_slow_is_noticed_within_some_images():
    limit = UploadLimit(0.0)
    for number in range(5000):
        limit.dispatched(0.02, number * 0.01)
        limit.answered(0.02, number * 0.01, limit.ends_at, number * 0.01 + 1e-4, worker_s=0.0)
    for number in range(40):  # at 1 Mbit/s
        limit.dispatched(0.02, 100 + number)
        limit.answered(0.02, 100 + number, limit.ends_at, 100.16 + number, worker_s=0.0)
    limit.dispatched(0.02, 200.0)
    assert limit.ends_at - 200.0 == pytest.approx(0.16, rel=0.5)


def test_a_slow_model_is_not_a_slow_link():
    limit = UploadLimit(0.0)
    limit.dispatched(0.1, 0.0)
    limit.answered(0.1, 0.0, 0.0, 10.0, worker_s=9.999)
    assert all(limit.allows(0.1, 1.0, 10.0) or limit.dispatched(0.1, 10.0) for _ in range(100))


def test_a_server_that_does_not_say_its_time_has_no_limit():
    limit = UploadLimit(0.0)
    for _ in range(2):
        limit.dispatched(9.0, 0.0)
    limit.answered(9.0, 0.0, 0.0, 10.0, worker_s=None)
    assert limit.allows(9.0, 0.001, 10.0)


def send(balancer, now: float, *, left_s: float = 2.0):
    return balancer.pick(DIGITS, tried=(), now=now, rng=RNG, mb=0.1, deadline=now + left_s)


def sent(balancer, now: float, took_s: float = 0.04, **ended) -> None:
    """An image that is answered, or ends as `ended` says."""
    pick = send(balancer, now)
    assert isinstance(pick, Pick)
    ended.setdefault("outcome", Outcome.ANSWERED)
    pick.release(now=now + took_s, rng=RNG, sent_mb=0.1, worker_s=0.0, **ended)


def cut_off(balancer, now: float = -2.0) -> None:
    sent(balancer, now, 2.0, outcome=Outcome.FAILED, cut_off=True)


def test_images_wait_for_a_link_and_those_that_would_be_late_do_not():
    balancer = balancer_of("a")
    cut_off(balancer)
    sent(balancer, 0.01)
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


def test_without_an_image_that_was_cut_off_in_its_upload_there_is_no_limit():
    """Neither slow answers, nor failures, nor a deadline that passed at the worker are a sign."""
    balancer = balancer_of("a")
    for number in range(4):
        sent(balancer, number, 0.9)
        sent(balancer, number, 0.9, outcome=Outcome.FAILED)
    assert all(isinstance(send(balancer, 5.0, left_s=0.001), Pick) for _ in range(500))


def test_the_limit_ends_some_time_after_it_last_had_an_effect():
    balancer = balancer_of("a")
    cut_off(balancer)
    sent(balancer, 0.01)
    while isinstance(send(balancer, 9.0), Pick):
        pass
    assert isinstance(send(balancer, 9.1, left_s=0.1), RetryAt)
    assert isinstance(send(balancer, 19.0, left_s=0.001), RetryAt)  # 9.9 s after the last one
    assert isinstance(send(balancer, 29.1, left_s=0.001), Pick)
    assert balancer.endpoints[0].uploads is None


def test_another_worker_is_picked_while_one_link_is_full():
    balancer = balancer_of("a", "b")
    cut_off(balancer)
    [full] = [each for each in balancer.endpoints if each.uploads is not None]
    [free] = [each for each in balancer.endpoints if each.uploads is None]
    full.dispatched(0.0, 50.0)
    for _ in range(40):
        pick = send(balancer, 1.0)
        assert isinstance(pick, Pick)
        assert pick.endpoint is free


def test_workers_behind_the_same_slow_link_share_one_limit():
    balancer = balancer_of("a", "b")
    while any(each.uploads is None for each in balancer.endpoints):
        cut_off(balancer)
    sent(balancer, 0.01)
    picks = [send(balancer, 1.0) for _ in range(60)]
    began = sum(isinstance(each, Pick) for each in picks)
    assert began == pytest.approx(0.5 * 2.0 * MB_PER_S / 0.1, abs=1)


def test_what_the_worker_needs_is_not_left_for_the_upload():
    balancer = balancer_of("a")
    cut_off(balancer)
    sent(balancer, 0.01, load_report=structs.replace(report(), expected_s=1.9, alone_s=0.1))
    assert isinstance(send(balancer, 0.05), Pick)
    late = send(balancer, 0.05)
    assert isinstance(late, RetryAt)
    assert late.until == inf


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["dispatch", "answer", "late", "end", "uncounted"]),
        st.floats(0.0, 30.0),
        st.floats(0.0, 3.0),
    ),
    max_size=60,
)


@given(STEPS, st.floats(0.0, 100.0), st.floats(0.0, 100.0))
def test_whatever_was_measured(steps, mb, left_s):
    """One image is allowed on an empty link, and none with the time of two uploads and 0.25 s."""
    limit, now = UploadLimit(0.0), 0.0
    under_way: list[tuple[float, float, float]] = []
    last = 0.0
    for what, size_mb, after_s in steps:
        now += after_s
        if what == "dispatch":
            limit.dispatched(size_mb, now)
            under_way.append((size_mb, now, limit.ends_at))
        elif what == "uncounted":
            limit.uncounted(now)
        elif under_way:
            image = under_way.pop(random.Random(len(under_way)).randrange(len(under_way)))
            if what == "answer":
                limit.answered(*image, now, worker_s=after_s / 2)
            elif what == "late":
                limit.late(*image, now)
                last = now
            else:
                limit.ended(image[0])
    assert limit.unanswered == len(under_way)
    assert limit.needed_until == pytest.approx(last + 10.0)
    assert limit.allowed_at(mb, left_s, now) > now
    upload_s = max(0.0, limit.allowed_at(mb, 0.0, now) - limit.allowed_at(0.0, 0.0, now)) / 2
    if left_s >= 2 * upload_s + 0.26:
        assert not limit.hopeless(mb, left_s)
    for size_mb, _, _ in under_way:
        limit.ended(size_mb)
    assert limit.allows(mb, left_s, now)


@given(st.lists(st.sampled_from([*Outcome]), max_size=80), st.integers(0, 9))
def test_the_limit_is_never_there_without_a_sign(outcomes, seed):
    """Then each pick is the one that it would be without it."""
    with_mb, without = balancer_of("a", "b", "c"), balancer_of("a", "b", "c")
    chance, same = random.Random(seed), random.Random(seed)
    for number, outcome in enumerate(outcomes):
        now = 0.3 * number
        mine = with_mb.pick(DIGITS, tried=(), now=now, rng=chance, mb=9.0, deadline=now + 1e-3)
        other = without.pick(DIGITS, tried=(), now=now, rng=same)
        assert type(mine) is type(other)
        if isinstance(mine, Pick) and isinstance(other, Pick):
            assert mine.endpoint.id == other.endpoint.id
            for pick, rng in ((mine, chance), (other, same)):
                pick.release(outcome, now=now + 0.2, rng=rng, sent_mb=9.0, worker_s=0.0)
    assert all(each.uploads is None for each in with_mb.endpoints)
