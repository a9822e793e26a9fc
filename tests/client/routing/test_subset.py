"""Subsets of a large fleet: even, and stable when workers come and go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from fingerpost.client.routing.subset import subset


@dataclass
class Named:
    id: str
    weight: int = 1


def test_subsets_are_even_and_stay():
    endpoints = [Named(f"w{index}") for index in range(200)]
    assert subset(endpoints[:64], "c", 64) == endpoints[:64]
    used: Counter = Counter()
    moved = 0
    for number in range(200):
        mine = {each.id for each in subset(endpoints, f"client-{number}", 64)}
        assert len(mine) == 64
        used.update(mine)
        moved += len(mine - {each.id for each in subset(endpoints[1:], f"client-{number}", 64)})
    assert len(used) == 200
    assert max(used.values()) < 1.5 * 64
    assert min(used.values()) > 0.5 * 64
    assert moved == used["w0"], "only those who had the lost one take another"


def test_a_heavier_worker_is_in_more_subsets():
    endpoints = [Named(f"w{index}", weight=1 + 3 * (index == 0)) for index in range(100)]
    found = [subset(endpoints, f"client-{number}", 10) for number in range(300)]
    times = Counter(each.id for each in [one for mine in found for one in mine])
    assert times["w0"] > 2 * times["w1"]
