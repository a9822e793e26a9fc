"""When a worker is left out, for how long, and how it comes back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.balancers import (
    DIGITS,
    RNG,
    balancer_of,
    instance,
    pick,
    report,
    send,
    snapshot,
    usable,
)

from fingerpost.client.routing import (
    Balancer,
    Ejection,
    EjectionConfig,
    Outcome,
    RetryAt,
    RetryConfig,
)
from fingerpost.registry import (
    WorkerState,
)


def test_a_refused_connection_ejects_for_a_second_which_one_trial_doubles_or_clears():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.REFUSED, 0.0)
    assert usable(balancer, 0.99) == {"b"}
    trial = pick(balancer, 1.0, but={"b"})
    assert trial.trial
    assert usable(balancer, 1.0) == {"b"}, "one trial at a time"
    trial.release(Outcome.REFUSED, now=1.0, rng=RNG)
    assert usable(balancer, 1.0 + 2 * 0.75 - 0.01) == {"b"}
    assert usable(balancer, 1.0 + 2 * 1.25) == {"a", "b"}
    send(balancer, "a", Outcome.ANSWERED, 4.0)
    assert usable(balancer, 4.0) == {"a", "b"}
    send(balancer, "a", Outcome.REFUSED, 5.0)
    assert usable(balancer, 6.0) == {"a", "b"}, "a success starts again at one second"


def test_a_trial_that_was_abandoned_leaves_room_for_another():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.REFUSED, 0.0)
    trial = pick(balancer, 1.0, but={"b"})
    trial.release(Outcome.ABANDONED, now=1.0, rng=RNG)
    assert pick(balancer, 1.0, but={"b"}).trial


def test_many_that_fail_together_are_one_failure():
    balancer = balancer_of("a", "b")
    picks = [pick(balancer, but={"b"}) for _ in range(16)]
    for made in picks:
        made.release(Outcome.REFUSED, now=0.5, rng=RNG)
    assert usable(balancer, 1.5) == {"a", "b"}


def test_a_late_success_does_not_end_an_ejection():
    balancer = balancer_of("a", "b")
    early = pick(balancer, but={"b"})
    send(balancer, "a", Outcome.REFUSED, 0.5)
    early.release(Outcome.ANSWERED, now=0.6, rng=RNG)
    assert usable(balancer, 0.7) == {"b"}


@pytest.mark.parametrize(
    ("outcome", "first_s", "cap_s"), [(Outcome.REFUSED, 1.0, 30.0), (Outcome.FAILED, 5.0, 300.0)]
)
def test_ejection_grows_to_its_cap(outcome, first_s, cap_s):
    ejection, now, lengths = Ejection(EjectionConfig()), 0.0, []
    while len(lengths) < 40:
        trial = ejection.dispatched(now)
        ejection.finished(outcome, picked_at=now, trial=trial, now=now, rng=RNG, retry_after_s=None)
        if ejection.usable_from() > now:
            lengths.append(ejection.usable_from() - now)
        now = max(now, ejection.usable_from()) + 0.001
    assert lengths[0] == pytest.approx(first_s)
    for count, each in enumerate(lengths):
        nominal_s = first_s * 2**count
        assert min(cap_s, 0.75 * nominal_s) - 0.001 <= each <= min(cap_s, 1.25 * nominal_s) + 0.001


def test_five_failures_in_a_row_eject():
    balancer = balancer_of("a", "b")
    for _ in range(4):
        send(balancer, "a", Outcome.FAILED)
    assert usable(balancer, 0.0) == {"a", "b"}
    send(balancer, "a", Outcome.FAILED)
    assert usable(balancer, 4.9) == {"b"}


@pytest.mark.parametrize(("good", "ejected"), [(4, True), (9, False)])
def test_a_worker_that_succeeds_too_rarely_is_ejected(good, ejected):
    """One failure to `good` successes: 80 % or more is enough, and 5 requests are needed."""
    balancer = balancer_of("a", "b")
    for number in range(20):
        outcome = Outcome.ANSWERED if (number + 1) % (good + 1) else Outcome.FAILED
        send(balancer, "a", outcome, number * 0.5)
    assert usable(balancer, 9.9) == {"a", "b"}, "exactly 80 % is enough"
    send(balancer, "a", Outcome.FAILED, 9.9)
    assert usable(balancer, 9.9) == ({"b"} if ejected else {"a", "b"})


def test_old_failures_are_forgotten():
    balancer = balancer_of("a", "b")
    for _ in range(4):
        send(balancer, "a", Outcome.FAILED, 0.0)
    send(balancer, "a", Outcome.ANSWERED, 30.0)
    for _ in range(3):
        send(balancer, "a", Outcome.FAILED, 31.0)
    assert usable(balancer, 31.0) == {"a", "b"}


def fail(balancer: Balancer, *names: str) -> None:
    for name in names:
        for _ in range(5):
            send(balancer, name, Outcome.FAILED)


def test_at_most_half_are_ejected_for_failures():
    balancer = balancer_of("a", "b", "c", "d")
    fail(balancer, "a", "b")
    assert usable(balancer, 0.0) == {"c", "d"}
    fail(balancer, "c")
    assert usable(balancer, 0.0) == {"a", "b", "c", "d"}, "panic"
    send(balancer, "d", Outcome.REFUSED)
    assert usable(balancer, 0.0) == {"a", "b", "c"}, "a refused connection is certain"


def test_refused_connections_do_not_count_towards_panic():
    balancer = balancer_of("a", "b", "c", "d")
    for name in "abc":
        send(balancer, name, Outcome.REFUSED)
    assert usable(balancer, 0.5) == {"d"}


def test_all_ejected_is_panic_and_all_are_picked_from():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.REFUSED)
    send(balancer, "b", Outcome.REFUSED)
    assert usable(balancer, 0.5) == {"a", "b"}
    send(balancer, "a", Outcome.ANSWERED, 0.5)
    assert usable(balancer, 0.5) == {"a"}


@pytest.mark.parametrize(
    ("retry_after_s", "ejected_s"), [(None, 0.1), (0.0, 0.0), (3.0, 3.0), (86400.0, 30.0)]
)
def test_overload_is_not_a_failure(retry_after_s, ejected_s):
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.OVERLOADED, 1.0, retry_after_s=retry_after_s)
    if ejected_s:
        assert usable(balancer, 1.0 + ejected_s - 0.01) == {"b"}
    assert usable(balancer, 1.0 + ejected_s) == {"a", "b"}
    assert not pick(balancer, 1.0 + ejected_s, but={"b"}).trial


def test_all_overloaded_is_a_retry_when_the_first_is_free():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.OVERLOADED, 0.0, retry_after_s=3.0)
    send(balancer, "b", Outcome.OVERLOADED, 0.0, retry_after_s=2.0)
    made = balancer.pick(DIGITS, tried=(), now=0.5, rng=RNG)
    assert isinstance(made, RetryAt)
    assert made.until == 2.0
    assert usable(balancer, 2.0) == {"b"}


@pytest.mark.parametrize("by_report", [True, False])
def test_a_draining_worker_is_ejected_and_tried_again_later(by_report):
    balancer = balancer_of("a", "b")
    if by_report:
        send(balancer, "a", Outcome.ANSWERED, load_report=report(state=WorkerState.DRAINING))
    else:
        send(balancer, "a", Outcome.DRAINING)
    assert usable(balancer, 9.9) == {"b"}
    assert pick(balancer, 10.0, but={"b"}).trial


def test_a_worker_that_has_just_registered_is_used_though_it_says_starting():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.ANSWERED, load_report=report(state=WorkerState.STARTING))
    assert usable(balancer, 0.1) == {"a", "b"}


@given(st.integers(0, 60), st.integers())
def test_backoff_is_within_its_ceiling(rounds, seed):
    wait_s = RetryConfig().backoff_s(rounds, random.Random(seed))
    assert 0 <= wait_s <= min(2.0, 0.05 * 2**rounds)


def test_a_stale_entry_is_left_out_until_it_changes_or_for_half_a_minute():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.STALE, 1.0)
    balancer.update(snapshot(instance("a"), instance("b")), 2.0)
    assert usable(balancer, 30.9) == {"b"}, "the same entry changes nothing"
    balancer.update(snapshot(instance("a", version="2"), instance("b", version="2")), 3.0)
    assert usable(balancer, 3.0) == {"a", "b"}
    send(balancer, "a", Outcome.STALE, 4.0)
    assert usable(balancer, 33.9) == {"b"}
    assert usable(balancer, 34.1) == {"a", "b"}, "for a trial"


def test_a_refusal_by_an_entry_that_was_corrected_meanwhile_does_not_count():
    balancer = balancer_of("a", "b")
    early = pick(balancer, 1.0, but={"b"})
    balancer.update(snapshot(instance("a", version="2"), instance("b")), 2.0)
    early.release(Outcome.STALE, now=3.0, rng=RNG)
    assert usable(balancer, 3.0) == {"a", "b"}


def test_the_report_of_another_process_leaves_the_worker_out_and_is_not_used():
    balancer = balancer_of("a", "b")
    send(balancer, "a", Outcome.ANSWERED, load_report=report(seq=9))
    send(balancer, "a", Outcome.ABANDONED, 1.0, load_report=report(seq=1, boot_id=2))
    assert usable(balancer, 1.0) == {"b"}
    assert balancer.endpoints[0].load_report == report(seq=9)
