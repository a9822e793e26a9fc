"""Weighted round robin: each worker in turn, faster ones more often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["WeightedRoundRobin"]

_UPDATE_S: Final = 1.0
_MOST: Final = 10.0  # times the mean; gRPC's limits
_LEAST: Final = 0.1


class WeightedRoundRobin(Policy):
    """Gives turns in proportion to weight times capacity: slots / expected seconds a megabyte.

    The capacities are computed once a second, as in gRPC's `weighted_round_robin`, where they are
    queries / utilization; Fingerpost's workers report times and slots instead. A worker without a
    report gets the mean. The turns are a static stride schedule: in each round a worker is skipped
    in proportion to what its weight lacks of the largest, so that a pick takes constant time on
    average, without a heap. For comparison: it ignores load.
    """

    def __init__(self) -> None:
        self._candidates: Sequence[object] = ()
        self._shares: list[float] = []
        self._owed: list[float] = []
        self._update_at = 0.0
        self._turn = 0

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`."""
        if candidates is not self._candidates or now >= self._update_at:
            self._weigh(candidates, now, rng)
        shares, owed, count = self._shares, self._owed, len(candidates)
        while True:
            self._turn = turn = (self._turn + 1) % count
            owed[turn] += shares[turn]
            if owed[turn] >= 1:
                owed[turn] -= 1
                return candidates[turn]

    def _weigh(self, candidates: Sequence[C], now: float, rng: Random) -> None:
        known = {
            index: max(1, each.load_report.slots) / each.expected_s_per_mb
            for index, each in enumerate(candidates)
            if each.load_report is not None and each.expected_s_per_mb > 0
        }
        mean = sum(known.values()) / len(known) if known else 1.0
        weights = [
            each.weight * min(max(known.get(index, mean), _LEAST * mean), _MOST * mean)
            for index, each in enumerate(candidates)
        ]
        top = max(weights)
        self._shares = [weight / top for weight in weights]
        if candidates is not self._candidates:
            # At random, or clients that start together would pick the same workers together.
            self._owed = [rng.random() for _ in candidates]
        self._candidates = candidates
        self._update_at = now + _UPDATE_S
