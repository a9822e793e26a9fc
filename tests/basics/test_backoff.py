from __future__ import annotations

import random

import pytest

from fingerpost.basics.backoff import EQUAL_JITTER, FULL_JITTER, Backoff


@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (Backoff(base_s=0.1, cap_s=1.0), [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]),
        (Backoff(base_s=5.0, cap_s=5.0), [5.0] * 6),
        (Backoff(base_s=0.2, cap_s=10.0, factor=2.24), [0.2, 0.448, 1.00352, 2.2479, 5.035, 10.0]),
    ],
    ids=["doubles up to the cap", "starts at the cap", "another factor"],
)
def test_nominal_delays(backoff: Backoff, expected: list[float]) -> None:
    found = [backoff.nominal_s(attempt) for attempt in range(len(expected))]
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_million_attempts_do_not_overflow() -> None:
    assert Backoff(base_s=0.1, cap_s=10.0).nominal_s(1_000_000) == 10.0


@pytest.mark.parametrize("jitter", [FULL_JITTER, EQUAL_JITTER, (0.75, 1.25)])
def test_jitter_stays_within_its_range_and_uses_all_of_it(jitter: tuple[float, float]) -> None:
    backoff = Backoff(base_s=1.0, cap_s=8.0, jitter=jitter)
    rng = random.Random(7)
    low, high = jitter
    drawn = [backoff.delay_s(2, rng) / 4.0 for _ in range(1000)]
    assert low <= min(drawn) < low + 0.02
    assert high - 0.02 < max(drawn) <= high


def test_the_same_seed_gives_the_same_delays() -> None:
    backoff = Backoff(base_s=1.0, cap_s=8.0)
    first, second = (
        [backoff.delay_s(attempt, rng) for attempt in range(5)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == second
