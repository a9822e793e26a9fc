"""Who waits for a place at a worker, oldest first."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Generic, TypeVar

__all__ = ["WaitingLine"]

T = TypeVar("T")


class WaitingLine(Generic[T]):
    """Requests for which no worker has a place. The oldest tries first; the next one after it.

    Only one is called at a time: it either gets a place, so that the next one may try, or it joins
    again, and all wait. New requests join as long as the line is not empty, so that they do not
    overtake. Does no I/O.
    """

    __slots__ = ("_called", "_joined", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, T]] = []
        self._joined = 0
        self._called = False

    def __bool__(self) -> bool:
        """Whether anyone waits, or was called and has not said how it went."""
        return self._called or bool(self._waiting)

    def join(self, began: float, item: T, *, again: bool = False) -> None:
        """Wait for a place.

        Args:
            began: since when the request has waited; the least is called first.
            item: what `call` returns.
            again: it was called, and found no place.
        """
        self._joined += 1
        heappush(self._waiting, (began, self._joined, item))
        if again:
            self._called = False

    def call(self) -> T | None:
        """The oldest request, to try now; None if there is none, or if one is called already."""
        if self._called or not self._waiting:
            return None
        self._called = True
        return heappop(self._waiting)[2]

    def done(self) -> None:
        """The called request waits no longer: call the next one."""
        self._called = False
