"""The images that a stream has read and not yet returned, and the order of its results."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from fingerpost.client.streaming.concurrency import ConcurrencyLimit

if TYPE_CHECKING:
    from fingerpost.client.result import Result
    from fingerpost.client.streaming.options import StreamOptions

__all__ = ["StreamWindow"]


class StreamWindow:
    """Bounds how many images a stream has read and not yet returned as results.

    For each image `claim` is called before it is read, then `read` (or `end`, if there is no other
    image), then `add` with its result; `take` returns the results. Does no I/O, and is not
    thread-safe.

    Attributes:
        limit: how many images may be in flight, and how many in the window.
        ended: whether the source has no more images.
    """

    __slots__ = (
        "_claimed",
        "_early",
        "_next",
        "_ordered",
        "_raises",
        "_read",
        "_ready",
        "_taken",
        "ended",
        "limit",
    )

    def __init__(self, options: StreamOptions) -> None:
        self.limit = ConcurrencyLimit(options.concurrency, options.max_bytes)
        self.ended = False
        self._ordered = options.ordered
        self._raises = options.on_error == "raise"
        self._ready: deque[Result] = deque()
        self._early: dict[int, Result] = {}  # in order, those that come before an earlier image
        self._next = 0
        self._claimed = 0  # read, or about to be
        self._read = 0
        self._taken = 0

    def has_room(self) -> bool:
        """Whether another image may be read."""
        return not self.ended and self._claimed - self._taken < self.limit.window

    @property
    def done(self) -> bool:
        """Whether all images were read and all results taken."""
        return self.ended and self._taken == self._read

    def claim(self) -> None:
        """Reserve a place for an image that is about to be read."""
        self._claimed += 1

    def read(self) -> int:
        """Record that an image was read; its index in the stream, from 0."""
        index = self._read
        self._read = index + 1
        return index

    def end(self) -> None:
        """Record that there is no other image, and release the place."""
        self.ended = True
        self._claimed -= 1

    def add(self, result: Result) -> None:
        """Add a result; in order, it waits for those of all earlier images."""
        if not self._ordered:
            self._ready.append(result)
            return
        self._early[result.index] = result
        while (ready := self._early.pop(self._next, None)) is not None:
            self._ready.append(ready)
            self._next += 1

    def take(self) -> Result | None:
        """The next result, or None if there is none yet.

        Raises:
            FingerpostError: the error of the image, with `on_error="raise"`.
        """
        if not self._ready:
            return None
        result = self._ready.popleft()
        self._taken += 1
        if self._raises and result.error is not None:
            raise result.error
        return result
