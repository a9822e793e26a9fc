"""How many requests one worker accepts from this client, learned from those that it refuses."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

__all__ = ["OverloadLimit"]

_CUT: Final = 0.9
_GROWTH: Final = 0.04  # of the limit in a round trip, where that is more than one request
_FORGOTTEN_S: Final = 30.0
_SPREAD: Final = 0.25
_PAUSE_S: Final = 0.002  # least, times the refusals in a row
_MOST_PAUSE_S: Final = 0.25


class OverloadLimit:
    """The most requests that a client has in flight at one worker; none until it refuses one.

    A refusal for overload (429) is backpressure: the worker has no place for one more request. What
    it has not refused is what it has places for, so the limit becomes the number of requests that
    are still in flight there, less a tenth, once in a round trip. Each answer while the limit is
    reached raises it: by one request in a round trip, or by 4 % where that is more. So clients
    that share a worker get equal shares (Chiu and Jain, 1989: additive increase, multiplicative
    decrease), and the worker's queue is full without many refusals. The limit is forgotten 30 s
    after the last refusal.

    Rejected: to leave the worker out for its `Retry-After`, as one would with a server that limits
    rates. One worker with a queue of four images answered 46 images a second to a client with 16
    in flight, and 2,400 with a longer queue. Rejected, too: halving as TCP does, because a refused
    request costs one round trip and no upload, and an empty queue costs throughput.

    Attributes:
        limit: most requests in flight; not a whole number, and 1 or more.
    """

    __slots__ = ("_cut_at", "_in_a_row", "limit")

    def __init__(self) -> None:
        self.limit = inf
        self._in_a_row = 0
        self._cut_at = -inf

    def allows(self, in_flight: int) -> bool:
        """Whether one more request may be sent where so many are in flight."""
        return in_flight + 1 <= self.limit

    def refused(self, in_flight: int, *, picked_at: float, now: float) -> None:
        """Record a refusal; `in_flight` others are there still."""
        self._in_a_row += 1
        limit = min(self.limit, float(in_flight))
        if picked_at > self._cut_at:  # later ones of the same round trip only count
            limit *= _CUT
            self._cut_at = now
        self.limit = max(1.0, limit)

    def answered(self, in_flight: int, now: float) -> None:
        """Record an answer; `in_flight` were there until then, including this one."""
        self._in_a_row = 0
        if now - self._cut_at > _FORGOTTEN_S:
            self.limit = inf
        elif in_flight + 1 > self.limit:
            self.limit += max(1.0 / self.limit, _GROWTH)

    def pause_s(self, retry_after_s: float | None, in_flight: int, rng: Random) -> float | None:
        """For how long the worker is left out after a refusal; None for the default.

        Not at all while it has other requests of this client: their answers tell when it has a
        place. A client that has none there comes back after `retry_after_s`, with some spread, or
        a little later if it was refused again and again. Rejected: exponential back-off, by which
        those that were unlucky wait ten times as long as the others.

        Args:
            retry_after_s: seconds, by the worker's word; None if it did not say.
            in_flight: how many others are there still.
            rng: the source of randomness.
        """
        if in_flight:
            return 0.0
        if retry_after_s is None:
            return None
        least_s = min(_MOST_PAUSE_S, _PAUSE_S * (self._in_a_row - 1))
        return max(retry_after_s, least_s) * (1 + _SPREAD * rng.random())
