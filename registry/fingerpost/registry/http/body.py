"""The body of a request on a known path: pieces come in, one reader takes them out."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

__all__ = ["NO_BODY", "Body"]


class Hold(Protocol):
    """Pauses a connection, or lets it go on."""

    def __call__(self, *, wait: bool) -> object:
        """Pause if `wait`."""
        ...


class Body:
    """Holds what has arrived until its reader takes it; asks for a pause when that is much.

    Its methods are those of `aiohttp.StreamReader` that handlers of images use, and mean the same.

    Args:
        most: bytes that wait for the reader before the pause is asked for.
        hold: pauses the connection, or lets it go on.

    Attributes:
        total_bytes: bytes that have arrived.
    """

    __slots__ = (
        "_error",
        "_hold",
        "_most",
        "_paused",
        "_pieces",
        "_waiter",
        "_waiting",
        "_whole",
        "total_bytes",
    )

    def __init__(self, most: int, hold: Hold) -> None:
        self._most = most
        self._hold = hold
        self._pieces: list[bytes] = []
        self._waiting = 0  # bytes in the pieces
        self._whole = self._paused = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.total_bytes = 0

    def has_come(self, data: bytes) -> None:
        """The whole body has arrived, at most as much as may wait: before anybody reads it."""
        self._pieces.append(data)
        self._waiting = self.total_bytes = len(data)
        self._whole = True

    def is_eof(self) -> bool:
        """Whether the last byte has arrived."""
        return self._whole

    def exception(self) -> BaseException | None:
        """Why no more will arrive; None while that is not so."""
        return self._error

    def read_nowait(self) -> bytes:
        """All that has arrived and was not read.

        Raises:
            Exception: the body cannot arrive whole, see `exception`.
        """
        if self._error is not None:
            raise self._error
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._waiting = 0
        if self._paused:
            self._paused = False
            self._hold(wait=False)
        return data

    async def readany(self) -> bytes:
        """What has arrived, once there is something; empty at the end.

        Raises:
            Exception: the body cannot arrive whole, see `exception`.
        """
        if not self._pieces and not self._whole and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self.read_nowait()

    def feed_data(self, data: bytes) -> None:
        """Add a piece that has arrived."""
        self._pieces.append(data)
        self._waiting += len(data)
        self.total_bytes += len(data)
        if self._waiting > self._most:  # each time: the body before it lets the connection go on
            self._paused = True
            self._hold(wait=True)
        self._wake()

    def feed_eof(self) -> None:
        """The last byte has arrived."""
        self._whole = True
        self._paused = False  # what is paused from now on is for the next body
        self._wake()

    def set_exception(self, error: BaseException) -> None:
        """No more will arrive."""
        self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


def _nothing() -> Body:
    def hold(*, wait: bool) -> None:
        pass

    body = Body(1, hold)
    body.feed_eof()
    return body


# Of all requests that have none.
NO_BODY: Final = _nothing()
