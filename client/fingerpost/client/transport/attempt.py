"""One image on its way into one connection, and what phase that is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.client.images.oneshot import OneShot
    from fingerpost.client.routing import PhaseClock

__all__ = ["Upload"]


class Upload:
    """One attempt at sending an image, whose connection tells it how far that is.

    What is in the socket counts as sent; `connection_open` limits what the kernel holds unsent.

    Args:
        data: the encoded image.
        clock: of this attempt.
        now: reads the time, in the event loop's seconds.

    Attributes:
        sent_bytes: how much of the image was sent.
        sent_at: when all of it was; None until then.
    """

    __slots__ = ("_now", "clock", "data", "sent_at", "sent_bytes")

    def __init__(self, data: bytes | OneShot, clock: PhaseClock, now: Callable[[], float]) -> None:
        self.data: Final = data
        self.clock: Final = clock
        self._now: Final = now
        self.sent_bytes = 0
        self.sent_at: float | None = None

    def begin(self) -> None:
        """The connection is there, new or kept."""
        self.sent_bytes = 0
        self.sent_at = None
        self.clock.connected(self._now())

    def wrote(self, count: int) -> None:
        """Something left: so many bytes of the image."""
        self.sent_bytes += count
        self.clock.progressed(self._now())

    def done(self) -> None:
        """All of it left."""
        self.sent_at = self._now()
        self.clock.sent(self.sent_at)
