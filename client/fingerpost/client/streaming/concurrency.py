"""How many images of a stream may be in flight, and how many read."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fingerpost.basics.moving_average import ewma
from fingerpost.client.streaming.limit import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.client.result import Result

__all__ = ["Concurrency", "ConcurrencyLimit", "LimitSemaphore"]

Concurrency: TypeAlias = int | Literal["auto"]
"""How many images of a stream are in flight: see `Client.stream`."""

_SMOOTHING: Final = 0.05


class ConcurrencyLimit:
    """A fixed concurrency, or one that adapts to the throughput within a limit of memory.

    Args:
        concurrency: images in flight, or `auto`.
        max_bytes: how many image bytes may be in flight, with `auto`.

    Attributes:
        limit: how many images may be in flight.
    """

    __slots__ = ("_adaptive", "_max_bytes", "_mean_bytes", "limit")

    def __init__(self, concurrency: Concurrency, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._mean_bytes = 0.0
        self._adaptive: AdaptiveLimit | None = None
        if concurrency == "auto":
            self._adaptive = AdaptiveLimit()
            self.limit = self._adaptive.limit
        else:
            self.limit = concurrency

    @property
    def window(self) -> int:
        """How many images may be read and not yet returned as results.

        As many wait as are in flight, so that workers stay busy while the consumer pauses for the
        time of one answer.
        """
        return 2 * self.limit

    def answered(self, now: float, in_flight: int, result: Result) -> None:
        """Record a result; `in_flight` images were in flight until then, including this one."""
        adaptive = self._adaptive
        if adaptive is None:
            return
        if result.image_bytes > self._mean_bytes:  # follow growing images at once, others slowly
            self._mean_bytes = float(result.image_bytes)
        else:
            self._mean_bytes = ewma(self._mean_bytes, result.image_bytes, _SMOOTHING)
        if self._mean_bytes:
            adaptive.ceiling(int(self._max_bytes / self._mean_bytes))
        adaptive.answered(now, in_flight, overloaded="overloaded" in result.retried)
        self.limit = adaptive.limit


class LimitSemaphore:
    """A semaphore whose size is that of a `ConcurrencyLimit` at any time; first in, first out."""

    def __init__(self, limit: ConcurrencyLimit) -> None:
        self._limit = limit
        self._in_use = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def in_use(self) -> int:
        """How many slots are in use."""
        return self._in_use

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and hold it inside the `async with` block."""
        if self._in_use >= self._limit.limit or self._waiting:
            slot = asyncio.get_running_loop().create_future()
            self._waiting.append(slot)
            try:
                await slot
            except BaseException:  # cancelled: a slot that it got meanwhile goes on
                if slot.done() and not slot.cancelled():
                    self._in_use -= 1
                self._wake()
                raise
        else:
            self._in_use += 1
        try:
            yield
        finally:
            self._in_use -= 1
            self._wake()

    def _wake(self) -> None:
        while self._waiting and self._in_use < self._limit.limit:
            slot = self._waiting.popleft()
            if not slot.done():
                self._in_use += 1
                slot.set_result(None)
