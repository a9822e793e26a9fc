"""Random: any worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.policy import C

__all__ = ["RandomChoice"]


class RandomChoice(Policy):
    """Draws any candidate, regardless of load and weight. For comparison."""

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`."""
        return candidates[int(rng.random() * len(candidates))]
