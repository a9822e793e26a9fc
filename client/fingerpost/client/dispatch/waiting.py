"""Requests that wait, in the event loop, until a worker has a place for them."""

from __future__ import annotations

import asyncio

from fingerpost.client.routing.line import WaitingLine

__all__ = ["Waiting"]

# A new worker, or one that has places again, is noticed after this at the latest.
_LONGEST_S = 1.0


class Waiting:
    """A `WaitingLine` of calls for one model. Make it inside a running event loop.

    A call that finds no place waits by `turn`, tries again when that returns, and says by `done`
    that it waits no longer, unless it waits for another turn.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._line: WaitingLine[asyncio.Future[None]] = WaitingLine()
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        """Whether anyone waits."""
        return bool(self._line)

    async def turn(self, began: float, *, until: float | None = None, again: bool) -> None:
        """Wait until this call is the oldest one that waits, and there may be a place.

        Args:
            began: since when the call has waited, in the event loop's time.
            until: when there may be a place; None if others wait, who know that.
            again: this call has had a turn, and found no place.
        """
        turn = self._loop.create_future()
        self._line.join(began, turn, again=again)
        if until is not None:
            self._wake_at(min(until, self._loop.time() + _LONGEST_S))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.done()  # it was called and is cancelled at the same time
            raise

    def done(self) -> None:
        """The call whose turn it is waits no longer; the next one may try."""
        self._line.done()
        self.wake()

    def wake(self) -> None:
        """There may be a place: let the oldest call try."""
        while (turn := self._line.call()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
            self._line.done()  # it was cancelled

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.wake()
