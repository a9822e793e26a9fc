"""Wrong tokens: how fast they can be tried."""

from __future__ import annotations

import pytest

from fingerpost.errors import Overloaded
from fingerpost.security.attempts import Attempts


def test_each_failure_doubles_the_pause_of_its_address() -> None:
    attempts, now, waits = Attempts(), 100.0, []
    for _ in range(8):
        wait_s = attempts.wait_s("10.0.0.7", now)
        waits.append(wait_s)
        now += wait_s
        attempts.failed("10.0.0.7", now)
    assert waits == pytest.approx([0, 0.25, 0.5, 1, 2, 4, 5, 5])
    assert attempts.wait_s("10.0.0.8", now) == 0


def test_attempts_at_once_wait_one_after_the_other_and_are_bounded() -> None:
    attempts = Attempts()
    for _ in range(10):
        attempts.failed("10.0.0.7", 100.0)
    waits = [attempts.wait_s("10.0.0.7", 100.0) for _ in range(4)]
    assert waits == pytest.approx([5, 10, 15, 20])
    with pytest.raises(Overloaded) as caught:
        attempts.wait_s("10.0.0.7", 100.0)
    assert caught.value.retry_after_s == pytest.approx(25)


def test_a_success_or_a_long_pause_ends_it() -> None:
    attempts = Attempts()
    attempts.failed("a", 100.0)
    attempts.succeeded("a")
    assert attempts.wait_s("a", 100.0) == 0
    attempts.failed("a", 100.0)
    assert attempts.wait_s("a", 1000.0) == 0


def test_memory_is_bounded() -> None:
    attempts = Attempts()
    for number in range(20_000):
        attempts.failed(str(number), 100.0)
    assert len(attempts._addresses) == 10_000
    assert attempts.wait_s("19999", 100.0) > 0


def test_the_addresses_of_an_ipv6_network_are_one() -> None:
    attempts = Attempts()
    for number in range(4):
        attempts.failed(f"2001:db8::{number}", 100.0)
    assert attempts.wait_s("2001:db8::99", 100.0) == pytest.approx(2)
    assert attempts.wait_s("2001:db8:0:1::99", 100.0) == 0
    attempts.succeeded("2001:db8::5")
    assert attempts.wait_s("2001:db8::99", 100.0) == 0
