"""When to poll again and with which index: tables, and a simulation of a flapping registry."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import ConfigurationError
from fingerpost.registry import WatchConfig
from fingerpost.registry.watching.rules import WatchRules


@pytest.mark.parametrize(
    ("answers", "index"),
    [
        ([], 0),
        ([7], 7),
        ([7, 9], 9),
        ([7, 7], 7),
        ([0], 1),  # index 0 does not block, and would spin
        ([-5], 1),
        ([9, 7], 0),  # the registry lost its memory
        ([9, 7, 7], 7),
        ([9, None], 0),  # any error
        ([9, None, 4], 4),
    ],
    ids=str,
)
def test_the_index_of_the_next_poll(answers, index):
    rules = WatchRules(WatchConfig())
    for answer in answers:
        if answer is None:
            rules.failed(random.Random(1))
        else:
            rules.answered(answer, now=0.0)
    assert rules.index == index


@given(failures=st.integers(min_value=1, max_value=5000), seed=st.integers())
def test_a_failures_delay_is_within_its_ceiling(failures, seed):
    rules, rng = WatchRules(WatchConfig()), random.Random(seed)
    for failure in range(failures):
        delay_s = rules.failed(rng)
        assert 0 <= delay_s <= min(10.0, 0.1 * 2 ** min(failure, 10))


def test_success_resets_the_back_off():
    rules = WatchRules(WatchConfig())
    for _ in range(10):
        rules.failed(random.Random(1))
    rules.answered(5, now=0.0)
    assert rules.failed(random.Random(1)) <= 0.1


def test_watchers_do_not_return_in_step():
    delays = [WatchRules(WatchConfig()).failed(random.Random(seed)) for seed in range(200)]
    assert sum(delays) / len(delays) == pytest.approx(0.05, rel=0.2)
    assert len(set(delays)) == len(delays)


def test_a_burst_is_free_and_then_polls_are_paced():
    rules = WatchRules(WatchConfig(burst=3, polls_per_s=5.0))
    assert [rules.answered(n, now=100.0) for n in range(1, 6)] == pytest.approx([0, 0, 0, 0.2, 0.4])
    assert rules.answered(6, now=200.0) == 0, "rest fills the bucket again"


def test_a_registry_that_does_not_block_costs_a_bounded_number_of_polls():
    config = WatchConfig()
    rules, now, polls = WatchRules(config), 0.0, 0
    while now < 60:
        now += 0.001 + rules.answered(polls + 1, now=now)
        polls += 1
    assert polls <= config.burst + config.polls_per_s * 60 + 1


def test_a_clock_that_stands_still_or_goes_back_is_no_error():
    rules = WatchRules(WatchConfig(burst=1))
    rules.answered(1, now=10.0)
    assert rules.answered(2, now=5.0) >= 0


def test_the_deadline_is_beyond_what_consul_may_take():
    assert WatchConfig(wait_s=16.0).deadline_s == 16 + 1 + 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("wait_s", 0.0),
        ("backoff_base_s", -1.0),
        ("backoff_cap_s", float("inf")),
        ("polls_per_s", float("nan")),
        ("burst", 0),
        ("stored_after_s", -1.0),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ConfigurationError, match=f"{name}={value}: use"):
        WatchConfig(**{name: value})


def test_old_names_of_settings_are_answered_by_the_new_ones():
    with pytest.raises(ConfigurationError, match="self_preservation"):
        WatchConfig(shrinkage=None)  # pyright: ignore[reportCallIssue]
