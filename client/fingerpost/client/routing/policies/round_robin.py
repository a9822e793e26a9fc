"""Each worker in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from fingerpost.client.routing.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

__all__ = ["RoundRobin"]

T = TypeVar("T")


class RoundRobin(Policy):
    """Hands out the candidates in turn, whatever their load and weight.

    For a party that does not see requests end, such as the proxy: it has no in-flight counts to
    compare. When the candidates change, the turn goes on from the same position.
    """

    def __init__(self) -> None:
        self._turn = -1

    def pick(self, candidates: Sequence[T], now: float, rng: Random) -> T:
        """See `Policy.pick`; takes candidates of any type, and reads neither time nor chance."""
        self._turn = (self._turn + 1) % len(candidates)
        return candidates[self._turn]
