"""One attempt at sending an image over one connection, and the phase that it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.client.images.oneshot import OneShot
    from fingerpost.client.routing import PhaseClock

__all__ = ["Attempt"]


class Attempt:
    """One attempt at sending an image; its connection records the progress here.

    Bytes in the socket count as sent; `Opener` limits how many unsent bytes the kernel holds.

    Args:
        data: the encoded image.
        clock: the time limits of this attempt.
        now: returns the event loop's time.

    Attributes:
        sent_bytes: how many bytes of the image were sent.
        sent_at: when the whole image was sent, in the event loop's time; None until then.
        max_answer_bytes: the largest body of an answer, set from how many labels were asked for.
    """

    __slots__ = ("_now", "clock", "data", "max_answer_bytes", "sent_at", "sent_bytes")

    def __init__(self, data: bytes | OneShot, clock: PhaseClock, now: Callable[[], float]) -> None:
        self.data: Final = data
        self.clock: Final = clock
        self._now: Final = now
        self.sent_bytes = 0
        self.sent_at: float | None = None
        self.max_answer_bytes = 1 << 18

    def begin(self) -> None:
        """There is a connection, and sending begins: again, if an idle connection was closed."""
        self.sent_bytes = 0
        self.sent_at = None
        self.clock.connected(self._now())

    def wrote(self, count: int) -> None:
        """Record that `count` more bytes of the image were sent."""
        self.sent_bytes += count
        self.clock.progressed(self._now())

    def done(self) -> None:
        """Record that the whole image was sent."""
        self.sent_at = self._now()
        self.clock.sent(self.sent_at)
