"""Ends requests at their deadlines, without a timer for each of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from fingerpost.client.transport.deadlines import DeadlineScheduler, DeadlineScope
from fingerpost.errors import DeadlineExceeded

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["LONG_S", "Deadlines"]

LONG_S: Final = 1.0
"""A deadline that is so many seconds away may be noticed 20 ms late: see `DeadlineScheduler`."""


class Deadlines:
    """Ends the requests of one worker that have long deadlines. Made before the event loop runs.

    A timer for each request, which is set and cancelled, takes 3 us more.
    """

    def __init__(self) -> None:
        self._scheduler: DeadlineScheduler | None = None

    def until(self, at: float) -> _Section:
        """A section of the current task, for a `with` statement, which ends at a deadline.

        `DeadlineExceeded` is raised there, from whatever it waits for.

        Args:
            at: the deadline, by the loop's clock.
        """
        if self._scheduler is None:
            self._scheduler = DeadlineScheduler()
        return _Section(at, self._scheduler)


class _Section(DeadlineScope):
    __slots__ = ("_scheduler",)

    def __init__(self, at: float, scheduler: DeadlineScheduler) -> None:
        super().__init__(at)
        self._scheduler = scheduler

    def __enter__(self) -> Self:
        self._scheduler.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._scheduler.discard(self)
        if self.cancelled_caught() and isinstance(error, asyncio.CancelledError):
            raise DeadlineExceeded("the deadline passed before the request was answered") from None
