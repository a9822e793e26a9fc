"""How many requests to have in flight, found by experiment. Does no I/O."""

from __future__ import annotations

import enum
from math import ceil
from typing import Final

__all__ = ["AdaptiveLimit"]

_GROWTH: Final = 1.2  # a doubling that gains less than this was one too many
_STALLED: Final = 2  # after so many rounds without growth, as one may have been disturbed
_HOLD: Final = 8  # rounds between tries
_UP: Final = 1.25
_UP_GAIN: Final = 1.08
_DOWN: Final = 0.8
_DOWN_LOSS: Final = 0.97
_BACK_OFF: Final = 0.7
_ROUND_S: Final = 0.05
_ROUND_ANSWERS: Final = 16


class _Phase(enum.Enum):
    DOUBLING = enum.auto()
    HOLDING = enum.auto()
    TRYING_MORE = enum.auto()
    TRYING_LESS = enum.auto()


class AdaptiveLimit:
    """Raises the concurrency for as long as that raises the number of answers a second.

    ::

        DOUBLING --less than 20 % more answers, twice--> HOLDING, at the last limit that gained more
        HOLDING --8 rounds--> TRYING_MORE (x 1.25), next time TRYING_LESS (x 0.8)
        TRYING_MORE --at least 8 % more answers--> keeps it, and tries more; otherwise goes back
        TRYING_LESS --at most 3 % fewer answers--> keeps it; otherwise goes back
        any --a worker is overloaded--> x 0.7, HOLDING

    A round is twice as many answers as are in flight, of which the first half is not counted: those
    requests were sent under the previous limit. A round in which the source or the consumer was the
    bottleneck is ignored.

    This follows BBR (Cardwell et al., 2016: start until three rounds gain less than 25 %, then try
    a quarter more and a quarter less in turn), for requests instead of packets. Rejected: latency
    as the signal (Vegas, and Gradient2 of Netflix's concurrency-limits), because the latency of a
    worker that batches grows with its batches while its throughput grows too, so that they stop far
    too early; AIMD until something is refused, which fills every worker's queue first; and the sum
    of the workers' slots, which takes neither the link nor other clients into account.

    Args:
        initial: the first limit.
        minimum: the limit never falls below this.
        maximum: the limit never rises above this.

    Attributes:
        limit: how many requests to have in flight now.
    """

    def __init__(self, *, initial: int = 16, minimum: int = 4, maximum: int = 1024) -> None:
        self.limit = min(max(initial, minimum), maximum)
        self._minimum = minimum
        self._maximum = self._ceiling = maximum
        self._phase = _Phase.DOUBLING
        self._base = self.limit
        self._best = 0.0
        self._stalled = 0
        self._held: list[float] = []
        self._more_next = True
        self._answers = self._full = 0
        self._from = 0.0
        self._backed_off = False

    def ceiling(self, limit: int) -> None:
        """Set another upper bound, one of memory for example."""
        self._ceiling = max(self._minimum, min(self._maximum, limit))
        if self.limit > self._ceiling:
            self._move(self._ceiling)

    def answered(self, now: float, in_flight: int, *, overloaded: bool = False) -> None:
        """Record an answer.

        Args:
            now: monotonic seconds.
            in_flight: how many requests were in flight until then, including this one.
            overloaded: whether a worker refused the request before as overloaded.
        """
        if overloaded and not self._backed_off:
            self._phase = _Phase.HOLDING
            self._base = max(self._minimum, int(self.limit * _BACK_OFF))
            self._held.clear()
            self._move(self._base)
            self._backed_off = True
            return
        self._answers += 1
        self._full += in_flight >= self.limit
        settle = max(self.limit, _ROUND_ANSWERS)
        if self._answers == settle:
            self._from = now
        elif self._answers >= 2 * settle and now - self._from >= _ROUND_S:
            rate = (self._answers - settle) / (now - self._from)
            full = self._full >= 0.8 * self._answers
            self._restart(now)
            if full:
                self._round(rate)

    def _round(self, rate: float) -> None:
        match self._phase:
            case _Phase.DOUBLING:
                self._doubled(rate)
            case _Phase.HOLDING:
                self._held.append(rate)
                if len(self._held) >= _HOLD:
                    self._best = sorted(self._held)[len(self._held) // 2]
                    self._held.clear()
                    self._try()
            case _Phase.TRYING_MORE:
                if rate >= _UP_GAIN * self._best and self.limit > self._base:
                    self._base, self._best = self.limit, rate
                    self._move(ceil(self.limit * _UP))
                else:
                    self._hold()
            case _Phase.TRYING_LESS:
                if rate >= _DOWN_LOSS * self._best:
                    self._base = self.limit
                self._hold()

    def _doubled(self, rate: float) -> None:
        if rate >= _GROWTH * self._best:
            self._base, self._best, self._stalled = self.limit, rate, 0
            self._move(2 * self.limit)
            if self.limit == self._base:
                self._hold()
            return
        self._stalled += 1
        if self._stalled >= _STALLED:
            self._hold()

    def _try(self) -> None:
        more, self._more_next = self._more_next, not self._more_next
        self._phase = _Phase.TRYING_MORE if more else _Phase.TRYING_LESS
        self._move(ceil(self._base * _UP) if more else int(self._base * _DOWN))

    def _hold(self) -> None:
        self._phase = _Phase.HOLDING
        self._move(self._base)

    def _move(self, limit: int) -> None:
        self.limit = max(self._minimum, min(self._ceiling, limit))
        self._restart(self._from)

    def _restart(self, now: float) -> None:
        self._answers = self._full = 0
        self._from = now
        self._backed_off = False
