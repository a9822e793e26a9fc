"""What a stream of images is, and what it needs of the connection that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from fingerpost.client.frames import Ended
    from fingerpost.client.wire import ImageAnswer
    from fingerpost.errors import FingerpostError
    from fingerpost.registry import ModelReference
    from fingerpost.security.grant import Grant
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["StreamImage", "StreamLink", "StreamOrder"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOrder:
    """What a client opened a stream for.

    Attributes:
        reference: the model, whose version is chosen for each image.
        top: how many labels an answer has; 0 for all.
        grant, flow: of its tenant and class.
        left_s: seconds until the deadline of the whole stream; None where it has none.
        lease_left_s: seconds until the end of its lease; infinite where it needs none.
        classify_only: an answer of another task is the error `wrong_task`.
        infer: answers an item of any task for a version, until a deadline by the loop's clock, with
            nothing else beside it if the last argument says so; None where an item is an image.
    """

    reference: ModelReference
    top: int
    grant: Grant
    flow: Flow
    left_s: float | None
    lease_left_s: float
    classify_only: bool = False
    infer: Callable[[StreamImage, ServedVersion, float, bool], Awaitable[ImageAnswer]] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class StreamImage:
    """One image of a stream.

    Attributes:
        name: the client's name for it, which the answer repeats.
        body: the encoded image; empty where it was over the limit.
        oversize: its length in bytes, if that was over the limit; else 0.
        deadline_ms: what the client gives it from its arrival on; None for no deadline.
        problem: what is wrong with its head; it gets an answer all the same.
        served: the version that it is for; None until it has got so far.
        mark: what its link keeps of it.
    """

    name: str = ""
    body: bytes | memoryview = b""
    oversize: int = 0
    deadline_ms: float | None = None
    problem: FingerpostError | None = None
    served: ServedVersion | None = None
    mark: object = None


class StreamLink(Protocol):
    """The connection of a stream's client. It calls `stop` of the stream when it is lost."""

    @property
    def lost(self) -> ConnectionError | None:
        """Why the connection is gone; None while it is there."""
        ...

    async def opened(self, window: int) -> None:
        """Say that the stream is open, and how many images may be unanswered."""
        ...

    async def next(self, unanswered: Callable[[], int]) -> StreamImage | None:
        """The next image; None at the client's end of the stream.

        Args:
            unanswered: how many images the client waits for, without sending perhaps.

        Raises:
            FingerpostError: what the stream ends with.
        """
        ...

    async def observed(
        self, image: StreamImage, work: Callable[[], Awaitable[ImageAnswer]]
    ) -> ImageAnswer:
        """What `work` returns for an image; its errors pass through."""
        ...

    def admitted(
        self, image: StreamImage, served: ServedVersion
    ) -> AbstractAsyncContextManager[bool]:
        """Count an image as in flight; whether nothing else is to be run beside it.

        Raises:
            FingerpostError: it is refused.
        """
        ...

    async def answer(
        self, seq: int, image: StreamImage, result: ImageAnswer | FingerpostError
    ) -> None:
        """Send an image's answer, as far as the connection is there."""
        ...

    async def ended(self, end: Ended) -> None:
        """Send the end of the stream, as far as the connection is there."""
        ...

    def done(self, image: StreamImage) -> None:
        """An image is answered, or given up."""
        ...
