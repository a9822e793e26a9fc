"""Ends what takes too long, without a timer for each request."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Final, Protocol

from fingerpost.basics.supervision import count_unexpected

__all__ = ["CancelScope", "DeadlineScheduler", "DeadlineScope"]

_INTERVAL_S: Final = 0.02


class CancelScope:
    """A section of the current task that something else, such as a `DeadlineScheduler`, may cancel.

    Cancelling the scope cancels the task. The section then asks `cancelled_caught` whether the
    `CancelledError` that it received comes from the scope alone, as `asyncio.Timeout` does.
    """

    __slots__ = ("_cancelled", "reason", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a CancelScope must be made inside a task")
        self.task = task
        self.reason = ""
        self._cancelled = task.cancelling()

    def cancel(self, reason: str) -> None:
        """Cancel the section. Only the first call has an effect."""
        if not self.reason:
            self.reason = reason
            self.task.cancel()

    def cancelled_caught(self) -> bool:
        """Whether a received `CancelledError` comes from this scope alone. Call it once."""
        return bool(self.reason) and self.task.uncancel() <= self._cancelled


class _Checked(Protocol):
    def check(self, now: float) -> None: ...


class DeadlineScheduler:
    """Calls `check(now)` of everything in progress 50 times a second, with the event loop's time.

    Rejected: a timer for the deadline and one for each phase. Setting and cancelling them took a
    tenth of the time of a small image, and a delay of up to 20 ms does no harm here.

    Its timer has a context of its own: that of the call that set it would be kept, with all that
    its variables refer to, for as long as anything is in progress.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._checked: set[_Checked] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._context = Context()

    def add(self, checked: _Checked) -> None:
        """Check it from now on; whoever adds it must discard it."""
        self._checked.add(checked)
        if self._timer is None:
            self._set_timer()

    def discard(self, checked: _Checked) -> None:
        """Stop checking it."""
        self._checked.discard(checked)

    def close(self) -> None:
        """Stop checking anything."""
        if self._timer is not None:
            self._timer.cancel()

    def _check_all(self) -> None:
        now = self._loop.time()
        for each in self._checked:
            try:
                each.check(now)
            except Exception as error:  # must not end the deadlines of all others
                count_unexpected("deadlines", error)
        self._timer = None
        if self._checked:
            self._set_timer()

    def _set_timer(self) -> None:
        self._timer = self._loop.call_later(_INTERVAL_S, self._check_all, context=self._context)


class DeadlineScope(CancelScope):
    """Cancels a call at its deadline, which is in the event loop's time."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def check(self, now: float) -> None:
        """Cancel the call if it is past its deadline; called by a `DeadlineScheduler`."""
        if now >= self.at:
            self.cancel("deadline")
