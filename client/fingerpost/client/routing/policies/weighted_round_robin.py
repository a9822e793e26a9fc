"""Each worker in turn, the faster ones more often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["WeightedRoundRobin"]

_UPDATE_S: Final = 1.0
_MOST: Final = 10.0  # times the mean, and a tenth of it: gRPC's limits
_LEAST: Final = 0.1


class WeightedRoundRobin(Policy):
    """Turns in proportion to weight times capacity, slots / expected seconds a megabyte.

    The weights are taken anew once a second, as gRPC's `weighted_round_robin` does, where they
    are queries / utilization; Fingerpost's workers report time and slots, which say the same. A
    worker that has reported nothing gets the mean. The turns are a static stride schedule: in
    each round every worker is passed over as often as its weight is short of the largest, so a
    pick takes constant time on average and keeps no heap. For comparison: it does not see load.
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
            index: max(1, each.load.slots) / each.seconds_per_mb
            for index, each in enumerate(candidates)
            if each.load is not None and each.seconds_per_mb > 0
        }
        mean = sum(known.values()) / len(known) if known else 1.0
        weights = [
            each.weight * min(max(known.get(index, mean), _LEAST * mean), _MOST * mean)
            for index, each in enumerate(candidates)
        ]
        top = max(weights)
        self._shares = [weight / top for weight in weights]
        if candidates is not self._candidates:
            # Not all from nothing, or clients that start together go the same way together.
            self._owed = [rng.random() for _ in candidates]
        self._candidates = candidates
        self._update_at = now + _UPDATE_S
