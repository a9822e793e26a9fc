"""When to probe, and which workers: tables."""

from __future__ import annotations

import random
from collections import Counter
from math import inf
from typing import TYPE_CHECKING, cast

import pytest

from fingerpost.client.routing import Probing, ProbingConfig

if TYPE_CHECKING:
    from fingerpost.client.routing import Endpoint


def test_two_probes_a_request_without_replacement():
    probing, rng = Probing(ProbingConfig()), random.Random(1)
    endpoints = cast("list[Endpoint]", [f"w{index}" for index in range(10)])
    seen: Counter = Counter()
    for step in range(50):
        seen.update(probing.draw(endpoints, probing.on_request(step / 10), rng))
    assert set(seen.values()) == {10}


def test_a_fraction_of_a_probe_is_carried_over():
    probing = Probing(ProbingConfig(probes_per_request=0.25))
    assert sum(probing.on_request(step / 10) for step in range(100)) == 25


def test_no_more_than_200_probes_a_second():
    probing = Probing(ProbingConfig())
    sent = sum(probing.on_request(step / 1000) for step in range(10_000))
    assert sent == pytest.approx(2000, abs=25)


def test_an_idle_client_stops_probing():
    probing = Probing(ProbingConfig())
    assert probing.next_at() == inf
    probing.on_request(10.0)
    times = []
    while (at := probing.next_at()) < inf:
        assert probing.on_timer(at - 0.01) == 0
        assert probing.on_timer(at) == 1
        times.append(at)
    assert times == pytest.approx([10.5 + 0.5 * step for step in range(10)])


def test_a_long_upload_or_an_old_report_is_worth_a_wait():
    probing = Probing(ProbingConfig())
    assert probing.worth_waiting(0.01, freshest_at=0.0, now=1.5)
    assert not probing.worth_waiting(9.0, freshest_at=1.0, now=1.5), "no round trip known yet"
    probing.answered(0.01)
    assert probing.worth_waiting(0.3, freshest_at=1.0, now=1.5)
    assert not probing.worth_waiting(0.1, freshest_at=1.0, now=1.5)
