"""How many images of a stream may be in flight now, and how many read."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fingerpost.client.streaming.limit import AdaptiveLimit
from fingerpost.registry.moving_average import ewma

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.client.result import Result

__all__ = ["Concurrency", "Gate", "Pace"]

Concurrency: TypeAlias = "int | Literal['auto']"

_SMOOTHING: Final = 0.05


class Pace:
    """A fixed concurrency, or one that is found by trying and kept within so much memory.

    Args:
        concurrency: images in flight, or `auto`.
        most_bytes: of images in flight, where it is `auto`.
    """

    def __init__(self, concurrency: Concurrency, most_bytes: float) -> None:
        self._fixed = None if concurrency == "auto" else concurrency
        self._adaptive = AdaptiveLimit()
        self._most_bytes = most_bytes
        self._mean_bytes = 0.0

    @property
    def limit(self) -> int:
        """Images in flight."""
        return self._adaptive.limit if self._fixed is None else self._fixed

    @property
    def window(self) -> int:
        """Images read and not yet handed out as results.

        As many waiting as in flight, so that a consumer that pauses for one answer's time starves
        no worker.
        """
        return 2 * self.limit

    def answered(self, now: float, in_flight: int, result: Result) -> None:
        """A result came, with so many in flight until then, itself included."""
        if self._fixed is not None:
            return
        if result.image_bytes > self._mean_bytes:  # at once when they grow, slowly when not
            self._mean_bytes = float(result.image_bytes)
        else:
            self._mean_bytes = ewma(self._mean_bytes, result.image_bytes, _SMOOTHING)
        if self._mean_bytes:
            self._adaptive.ceiling(int(self._most_bytes / self._mean_bytes))
        self._adaptive.answered(now, in_flight, overloaded="overloaded" in result.retried)


class Gate:
    """Lets as many in as a pace allows, in the order they came."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def inside(self) -> int:
        """How many are in."""
        return self._inside

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """Wait for a place, and hold it within."""
        if self._inside >= self._pace.limit or self._waiting:
            place = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            try:
                await place
            except BaseException:
                if place.done() and not place.cancelled():
                    self._inside -= 1
                self._admit()
                raise
        else:
            self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self._pace.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)
