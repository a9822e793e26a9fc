"""How many requests to have in flight, found by trying."""

from __future__ import annotations

import enum
from math import ceil
from typing import Final

__all__ = ["AdaptiveLimit"]

_GROWTH: Final = 1.2  # a doubling that brings less than this has found the end
_STALLED: Final = 2  # rounds without it, as one may have been disturbed
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
    """Raises the concurrency while that raises the answers a second, and no further.

    ::

        DOUBLING --a doubling brings < 20 %, twice--> HOLDING, at the last that brought more
        HOLDING --8 rounds--> TRYING_MORE (x 1.25), next time TRYING_LESS (x 0.8)
        TRYING_MORE --8 % more answers--> stays there, and tries more; else back
        TRYING_LESS --3 % fewer answers at most--> stays there; else back
        any --a worker is overloaded--> x 0.7, HOLDING

    A round is as many answers as are in flight, twice: the first half was sent under the limit
    before. A round in which the source or the consumer was the slower part says nothing.

    It is the shape of BBR (Cardwell et al., 2016: start until three rounds bring less than 25 %,
    then try a quarter more and a quarter less in turn), for requests in place of packets.
    Rejected: latency as the signal (Vegas, and Gradient2 of Netflix's concurrency-limits), because
    a batching worker's latency grows with its batches while its throughput does too, so that they
    stop far too early; AIMD until something is refused, which fills every worker's queue first;
    and the sum of the workers' slots, which knows neither the link nor the other clients.

    Args:
        start: the first limit.
        least: it never falls below this.
        most: nor rises above this.
    """

    def __init__(self, *, start: int = 16, least: int = 4, most: int = 1024) -> None:
        self.limit = min(max(start, least), most)
        self._least = least
        self._most = self._ceiling = most
        self._phase = _Phase.DOUBLING
        self._base = self.limit
        self._best = 0.0
        self._stalled = 0
        self._held: list[float] = []
        self._more_next = True
        self._answers = self._full = 0
        self._from = 0.0
        self._backed_off = False

    def ceiling(self, most: int) -> None:
        """Keep within this as well: memory, say."""
        self._ceiling = max(self._least, min(self._most, most))
        if self.limit > self._ceiling:
            self._move(self._ceiling)

    def answered(self, now: float, in_flight: int, *, overloaded: bool = False) -> None:
        """An answer came, with so many in flight until then.

        Args:
            now: monotonic seconds.
            in_flight: itself included.
            overloaded: some worker refused it first because it had too much to do.
        """
        if overloaded and not self._backed_off:
            self._phase = _Phase.HOLDING
            self._base = max(self._least, int(self.limit * _BACK_OFF))
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
        self.limit = max(self._least, min(self._ceiling, limit))
        self._restart(self._from)

    def _restart(self, now: float) -> None:
        self._answers = self._full = 0
        self._from = now
        self._backed_off = False
