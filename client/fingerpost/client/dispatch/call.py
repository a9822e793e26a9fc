"""One image of a caller: what was asked for, and how far the attempts at it have come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import CallerError
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance

__all__ = ["Call", "CallOptions"]

_NONE: Final[frozenset[str]] = frozenset()


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of a call that apply to each of its images: see `Client.classify`."""

    reference: ModelReference
    top: int
    timeout_s: float
    shrink: bool = False
    sticky: str | None = None


class Call:
    """One image from the caller's request to its result; the dispatcher records its progress here.

    Attributes:
        reference, top, shrink, sticky: see `Client.classify`.
        began: when the client began with the image, in the event loop's time.
        deadline: in the event loop's time.
        headers: sent with every attempt.
        attempts: how many peers were asked so far.
        failed: how many attempts a peer began and did not finish.
        retried: the error codes of the failed attempts, in their order.
        last_error: the error of the last failed attempt.
        leave: ends the quarantine of a suspect image; None for others.
        lease: the lease that the last attempt carried.
        silent: what was said of the workers that fell silent on the image.
        disowned: ids of the peers that are not what their entries say.
        unknown: the error of the last of them that does not serve the model.
        image_bytes: how many bytes the encoded image has; for an image that is sent while it is
            read, how many bytes of it were sent.
        peer: the one that answered, or else the last one that was asked.
        worker: what the peer says of the worker behind it; see `Route.origin`.
    """

    __slots__ = (
        "attempts",
        "began",
        "deadline",
        "disowned",
        "failed",
        "headers",
        "image_bytes",
        "last_error",
        "lease",
        "leave",
        "peer",
        "reference",
        "retried",
        "shrink",
        "silent",
        "sticky",
        "top",
        "unknown",
        "worker",
    )

    def __init__(
        self,
        reference: ModelReference,
        *,
        top: int,
        began: float,
        deadline: float,
        shrink: bool = False,
        sticky: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.reference = reference
        self.top = top
        self.began = began
        self.deadline = deadline
        self.shrink = shrink
        self.sticky = sticky
        self.headers = headers
        self.attempts = 0
        self.failed = 0
        self.image_bytes = 0
        self.retried: tuple[str, ...] = ()
        self.leave: Callable[[], None] | None = None
        self.lease = ""
        self.silent: tuple[str, ...] = ()
        self.peer: Instance | None = None
        self.worker = ""
        self.last_error: FingerpostError | None = None
        self.disowned: frozenset[str] = _NONE
        self.unknown: FingerpostError | None = None

    def disown(self, peer_id: str, error: FingerpostError | None) -> None:
        """Record that a peer is not what its entry in the registry says."""
        self.disowned |= {peer_id}
        if isinstance(error, CallerError):
            self.unknown = error
