"""One attempt at sending an image over one connection, and the phase that it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.routing import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.client.images.frames import Frame
    from fingerpost.client.routing import PhaseClock

__all__ = ["Attempt", "Liveness"]


class Liveness(Protocol):
    """Asks a worker that has not answered for long whether it is still at work."""

    @property
    def ahead_s(self) -> float:
        """How many seconds before the end of `response_timeout_s` a worker is asked."""
        ...

    def begin(self, address: str, attempt: Attempt) -> None:
        """Ask the worker at `address`, for an attempt that waits there; does not wait itself."""
        ...


class Attempt:
    """One attempt at sending an image; its connection records the progress here.

    Bytes in the socket count as sent; `Opener` limits how many unsent bytes the kernel holds.

    Args:
        data: the encoded image, or a frame.
        clock: the time limits of this attempt.
        liveness: asks a worker that is late whether it is still at work; None to ask none.

    Attributes:
        boot_id: identifies the worker process that it is sent to; 0 if that is not known.
        sent_bytes: how many bytes of the image were sent.
        mapped_bytes: how many bytes a frame has whose memory was sent instead.
        sent_at: when the whole image was sent, in the event loop's time; None until then.
        lead: called when there is a connection, before the request is sent: returns more header
            fields. None for an image that is sent as a body.
        informed: an informational answer came, and then no answer: a worker says by it that it
            begins with a suspect image.
        held_up: it was cancelled while the link still carried bytes of it.
        max_answer_bytes: the largest body of an answer, set from how many labels were asked for.
    """

    __slots__ = (
        "boot_id",
        "clock",
        "data",
        "held_up",
        "informed",
        "lead",
        "liveness",
        "mapped_bytes",
        "max_answer_bytes",
        "sent_at",
        "sent_bytes",
    )

    def __init__(
        self,
        data: bytes | OneShot | Frame,
        clock: PhaseClock,
        liveness: Liveness | None = None,
    ) -> None:
        self.data = data
        self.clock: Final = clock
        self.liveness = liveness
        self.lead: Callable[[], bytes] | None = None
        self.boot_id = 0
        self.mapped_bytes = 0
        self.sent_bytes = 0
        self.sent_at: float | None = None
        self.informed = self.held_up = False
        self.max_answer_bytes = 1 << 18

    @property
    def body(self) -> bytes:
        """What is sent after the head of a request; nothing of a frame."""
        return self.data if isinstance(self.data, bytes) else b""

    async def encoded(self) -> bytes | OneShot:
        """The image as bytes; a frame is encoded, and stays so."""
        if not isinstance(self.data, bytes | OneShot):
            self.mapped_bytes = 0
            self.data = await self.data.encoded()
        return self.data

    # `now` is the event loop's time.

    def overdue(self, now: float, peer: str, *, begun: bool) -> str:
        """Why to give the attempt up now, as its phase takes too long; else an empty text.

        A worker that is late is asked first whether it is still at work: see `LivenessChecks`.

        Args:
            peer: the worker's address.
            begun: its answer has begun to come.
        """
        clock, liveness = self.clock, self.liveness
        if now < clock.expires_at() or now >= clock.deadline:
            if liveness is not None and not begun and clock.ask_now(now, liveness.ahead_s):
                liveness.begin(peer, self)
            return ""
        if clock.phase is Phase.UPLOAD:
            limit_s = clock.upload_stall_timeout_s
            return f"the upload made no progress for {limit_s:g} s (upload_stall_timeout_s)"
        return f"no response for {clock.response_timeout_s:g} s (response_timeout_s)"

    def begin(self, now: float) -> None:
        """There is a connection, and sending begins: again, if an idle connection was closed."""
        self.sent_bytes = 0
        self.sent_at = None
        self.clock.connected(now)

    def wrote(self, count: int, now: float) -> None:
        """Record that `count` more bytes of the image were sent."""
        self.sent_bytes += count
        self.clock.progressed(now)

    def done(self, now: float) -> None:
        """Record that the whole image was sent."""
        self.sent_at = now
        self.clock.sent(now)
