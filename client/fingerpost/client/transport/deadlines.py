"""Ends what takes too long, without a timer for each."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

__all__ = ["Limited", "Sweep"]

_STEP_S: Final = 0.02


class Limited:
    """A piece of work of the task that makes this, which a `Sweep` may cut short.

    Cutting it short cancels the task. The work then asks `was_cut` whether the `CancelledError`
    that it got is that and nothing else, as `asyncio.Timeout` does.
    """

    __slots__ = ("_cancelled", "reason", "task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cut short")
        self.task = task
        self.reason = ""
        self._cancelled = task.cancelling()

    def cut(self, reason: str) -> None:
        """End the work, once."""
        if not self.reason:
            self.reason = reason
            self.task.cancel()

    def was_cut(self) -> bool:
        """Whether a cancellation that arrived is this one alone; ask once."""
        return bool(self.reason) and self.task.uncancel() <= self._cancelled


class _Checked(Protocol):
    def check(self, now: float) -> None: ...


class Sweep:
    """Asks everything that is under way, 50 times a second, whether it has taken too long.

    Rejected: a timer for the deadline and for each phase. Setting and cancelling them took a tenth
    of the time of a small image, and here nobody minds being 20 ms late.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._checked: set[_Checked] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, checked: _Checked) -> None:
        """Check it until it is discarded; by its task's own hand, so that it is always."""
        self._checked.add(checked)
        if self._timer is None:
            self._timer = self._loop.call_later(_STEP_S, self._sweep)

    def discard(self, checked: _Checked) -> None:
        """It is over."""
        self._checked.discard(checked)

    def close(self) -> None:
        """Check nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        now = self._loop.time()
        for each in self._checked:
            each.check(now)
        self._timer = self._loop.call_later(_STEP_S, self._sweep) if self._checked else None
