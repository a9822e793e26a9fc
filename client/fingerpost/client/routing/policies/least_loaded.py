"""Least loaded: the worker with the fewest requests of this client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["LeastLoaded"]

_COMPARED: Final = 16


class LeastLoaded(Policy):
    """Picks the worker with the fewest requests in flight per weight; ties are broken at random.

    For a lone client, whose own requests are all there are. Of more than 16 workers it compares 16
    in a row from a random place, because reading a thousand would take longer than sending a small
    image. That costs little (Mitzenmacher 1996, as for `PowerOfTwo`).
    """

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`."""
        count = len(candidates)
        start = int(rng.random() * count)
        best = candidates[start]
        for index in range(start + 1 - min(count, _COMPARED), start):
            other = candidates[index]  # negative at the start: from the end
            # With the request that is to be sent; cross-multiplied, because weights may differ.
            if (other.in_flight + 1) * best.weight < (best.in_flight + 1) * other.weight:
                best = other
        return best
