"""Round robin: each worker in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

__all__ = ["RoundRobin"]

T = TypeVar("T")


class RoundRobin(Policy):
    """Picks the candidates in turn, regardless of load and weight.

    For a program that does not see requests end, such as the proxy: it has no requests in flight
    to compare. When the candidates change, the turn goes on from the same position.
    """

    def __init__(self) -> None:
        self._turn = -1

    def pick(self, candidates: Sequence[T], now: float, rng: Random) -> T:
        """See `Policy.pick`; candidates may be of any type, `now` and `rng` are not used."""
        self._turn = (self._turn + 1) % len(candidates)
        return candidates[self._turn]
