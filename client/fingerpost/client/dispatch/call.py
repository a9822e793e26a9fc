"""One image of a caller: what was asked for, and how far the attempts at it have come."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.client.wire import CLASS_HEADER
from fingerpost.errors import CallerError, ConfigurationError
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fingerpost.client.foreign.metadata import ForeignModel
    from fingerpost.client.foreign.requests import ForeignBody
    from fingerpost.client.images.frames import Frame
    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance

__all__ = ["Call", "CallOptions", "check_priority"]

_CLASS: Final = re.compile(r"[a-z][a-z0-9-]{0,62}")
_NONE: Final[frozenset[str]] = frozenset()


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The checked arguments of a call that apply to each of its images: see `Client.classify`."""

    reference: ModelReference
    top: int
    timeout_s: float
    shrink: bool = False
    sticky: str | None = None
    priority: str | None = None
    infer: bool = False
    head_bytes: int = 0

    @classmethod
    def checked(
        cls,
        reference: ModelReference,
        *,
        top: int,
        timeout_s: float,
        priority: str | None,
        **more: Any,
    ) -> CallOptions:
        """The options, if they are valid.

        Raises:
            ConfigurationError: a value is not valid.
        """
        try:
            if top < 1:
                raise ConfigurationError(f"top={top}: use 1 or more")
            if not 0 < timeout_s < float("inf"):
                raise ConfigurationError(f"timeout_s={timeout_s}: use a number above 0")
        except TypeError as error:
            raise ConfigurationError(
                f"top={top!r}, timeout_s={timeout_s!r}: use a whole number and a number"
            ) from error
        check_priority(priority)
        return cls(reference=reference, top=top, timeout_s=timeout_s, priority=priority, **more)


def check_priority(priority: str | None) -> None:
    """Raise `ConfigurationError` where a text cannot be the name of a priority class."""
    if priority is not None and not (isinstance(priority, str) and _CLASS.fullmatch(priority)):
        raise ConfigurationError(
            f"priority={priority!r} is not a valid class: use its name, such as 'batch'"
        )


class Call:
    """One image from the caller's request to its result; the dispatcher records its progress here.

    Attributes:
        reference, top, shrink, sticky, priority: see `Client.classify`.
        infer: see `Client.infer`.
        head_bytes: of named inputs, the length of the JSON before the arrays; 0 for an image.
        began: when the client began with the image, in the event loop's time.
        deadline: in the event loop's time.
        headers: sent with every attempt.
        attempts: how many peers were asked so far.
        failed: how many attempts a peer began and did not finish.
        retried: the error codes of the failed attempts, in their order.
        last_error: the error of the last failed attempt.
        leave: ends the quarantine of a suspect image; None for others.
        frame: the image's shared memory, if it is a frame that a worker may map.
        lease: the lease that the last attempt carried.
        silent: what was said of the workers that fell silent on the image.
        foreign: the request for foreign workers with some metadata, made at the first attempt.
        left_out: all workers are left out for overload; of a request that the caller sends itself.
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
        "foreign",
        "frame",
        "head_bytes",
        "headers",
        "image_bytes",
        "infer",
        "last_error",
        "lease",
        "leave",
        "left_out",
        "peer",
        "priority",
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
        self, options: CallOptions, *, began: float, headers: Mapping[str, str] | None = None
    ) -> None:
        self.reference = options.reference
        self.top = options.top
        self.began = began
        self.deadline = began + options.timeout_s
        self.shrink = options.shrink
        self.sticky = options.sticky
        self.infer = options.infer
        self.priority = priority = options.priority
        self.headers = headers if priority is None else {**(headers or {}), CLASS_HEADER: priority}
        self.head_bytes = options.head_bytes
        if self.head_bytes:
            # Not at the top: most clients only classify.
            from fingerpost.client.tasks.wire import HEADER_LENGTH

            self.headers = {**(self.headers or {}), HEADER_LENGTH: str(self.head_bytes)}
        self.attempts = 0
        self.failed = 0
        self.image_bytes = 0
        self.retried: tuple[str, ...] = ()
        self.leave: Callable[[], None] | None = None
        self.lease = ""
        self.left_out = False
        self.frame: Frame | None = None
        self.silent: tuple[str, ...] = ()
        self.peer: Instance | None = None
        self.worker = ""
        self.last_error: FingerpostError | None = None
        self.disowned: frozenset[str] = _NONE
        self.unknown: FingerpostError | None = None
        self.foreign: tuple[ForeignModel, ForeignBody] | None = None

    @property
    def service(self) -> str:
        """Names the routing table: each class has its own, for its load reports and refusals."""
        model = self.reference.model
        return model if self.priority is None else f"{model} {self.priority}"

    def disown(self, peer_id: str, error: FingerpostError | None) -> None:
        """Record that a peer is not what its entry in the registry says."""
        self.disowned |= {peer_id}
        if isinstance(error, CallerError):
            self.unknown = error
