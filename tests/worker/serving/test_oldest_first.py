"""Whom an overloaded worker accepts."""

from __future__ import annotations

import pytest

from fingerpost.worker.serving.oldest_first import OldestFirst


def refusing(waited_s: float, times: int = 100) -> OldestFirst:
    oldest_first = OldestFirst()
    for _ in range(times):
        oldest_first.refused(waited_s, 0.5, 10.0)
    return oldest_first


def test_nobody_is_deferred_before_a_refusal_and_some_time_after_the_last():
    assert not OldestFirst().contended(0.0)
    oldest_first = refusing(2.0)
    assert oldest_first.contended(10.9)
    assert not oldest_first.contended(11.0)


def test_who_has_waited_for_less_than_those_that_were_refused_is_deferred():
    oldest_first = refusing(2.0)
    assert oldest_first.defers(0.0)
    assert oldest_first.defers(1.9)
    assert not oldest_first.defers(2.0)


@pytest.mark.parametrize(
    ("waited_s", "factor"), [(2.0, 1.0), (1.0, 2.0), (0.0, 4.0), (4.0, 0.5), (100.0, 0.5)]
)
def test_the_young_come_back_later_and_the_old_sooner(waited_s, factor):
    assert refusing(2.0).refused(waited_s, 0.5, 10.0) == pytest.approx(0.5 * factor, rel=0.01)


def test_a_claim_to_have_waited_for_ever_is_forgotten_soon():
    oldest_first = OldestFirst()
    oldest_first.refused(1e9, 0.5, 10.0)
    for _ in range(100):
        oldest_first.refused(0.1, 0.5, 10.0)
    assert not oldest_first.defers(0.2)
    oldest_first.refused(1.0, 0.5, 99.0)  # and with the next overload at once
    assert not oldest_first.defers(0.1)
