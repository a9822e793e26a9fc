"""The retry budget: tables."""

from __future__ import annotations

from fingerpost.client.routing import Budget, RetryConfig


def test_retries_are_a_fifth_of_the_requests_and_one_a_second():
    budget = Budget(RetryConfig())
    assert sum(budget.spend(0.0, 0) for _ in range(100)) == 10
    for _ in range(100):
        budget.request(1.0, 0)
    assert sum(budget.spend(1.0, 0) for _ in range(100)) == 20


def test_what_was_sent_counts_for_ten_seconds():
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


def test_what_is_over_the_budget_borrows_one_attempt_and_more_while_they_are_answered():
    budget = Budget(RetryConfig())
    assert [budget.borrow(0.0) for _ in range(3)] == [True, False, False]
    budget.repay(0.1, answered=True)
    assert [budget.borrow(0.1) for _ in range(3)] == [True, True, False]
    budget.repay(0.2, answered=True)
    budget.repay(0.2, answered=True)
    assert sum(budget.borrow(0.2) for _ in range(100)) == 4
    for answered in (True, True, False, True):
        budget.repay(0.3, answered=answered)
    assert not budget.borrow(1.2), "a second after the last failure"
    assert sum(budget.borrow(1.4) for _ in range(100)) == 2
    budget.repay(1.5, answered=True)
    budget.repay(1.5, answered=True)
    assert sum(budget.borrow(12.0) for _ in range(100)) == 1, "old answers prove nothing"
