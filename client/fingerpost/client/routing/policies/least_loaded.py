"""The worker with the fewest requests of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["LeastLoaded"]

_LOOK_AT: Final = 16


class LeastLoaded(Policy):
    """Takes the worker with the fewest requests in flight per weight; ties are broken at random.

    For a lone client, whose own count is the whole truth. Of more than 16 it looks at 16 in a row
    from a random place, because reading a thousand would take longer than sending a small image;
    what that gives away is little (Mitzenmacher 1996, as for `PowerOfTwo`).
    """

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`."""
        count = len(candidates)
        start = int(rng.random() * count)
        best = candidates[start]
        for index in range(start + 1 - min(count, _LOOK_AT), start):
            other = candidates[index]  # negative at the start: from the end
            # With the request that is being placed; cross-multiplied, because weights may differ.
            if (other.in_flight + 1) * best.weight < (best.in_flight + 1) * other.weight:
                best = other
        return best
