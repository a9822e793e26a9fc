"""The power of two choices: of two workers drawn at random, the one with less in flight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Policy):
    """Draws two different workers and picks the one with fewer requests in flight per weight.

    Mitzenmacher, 'The Power of Two Choices in Randomized Load Balancing' (1996): the longest queue
    grows with log log n instead of log n / log log n. Rejected: the fewest in flight of all, which
    reads every worker, and by which many clients pick the same idle worker at once.
    """

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`. Takes constant time; of two equal workers it picks the first drawn."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        first = int(rng.random() * count)
        second = int(rng.random() * (count - 1))
        if second >= first:
            second += 1
        one, other = candidates[first], candidates[second]
        # With the request that is to be sent; cross-multiplied, because weights may differ.
        if (one.in_flight + 1) * other.weight <= (other.in_flight + 1) * one.weight:
            return one
        return other
