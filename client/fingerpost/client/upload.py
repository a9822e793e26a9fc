"""One image on its way into one connection, and what phase that is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp.payload import Payload
from multidict import CIMultiDict

from fingerpost.client.oneshot import CHUNK_BYTES, OneShot

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.abc import AbstractStreamWriter

    from fingerpost.client.routing import PhaseClock

__all__ = ["Upload"]

_HEADERS: Final = CIMultiDict({"Content-Type": "application/octet-stream"})
# Written in one piece, which is quicker; more would be copied whole into the socket's buffer.
_ONE_PIECE_BYTES: Final = 1 << 20


class Upload(Payload):
    """A request body that tells its clock when it is begun, moves and is sent.

    What is in the socket counts as sent; `Pools` limits what the kernel holds unsent.

    Args:
        data: the encoded image.
        clock: of this attempt.
        now: reads the time, in the event loop's seconds.

    Attributes:
        sent_bytes: how much was written.
        sent_at: when all of it was; None until then.
    """

    _autoclose = True  # holds nothing that must be closed

    def __init__(self, data: bytes | OneShot, clock: PhaseClock, now: Callable[[], float]) -> None:
        self._data: Final = data
        self._now: Final = now
        self._value = data
        self._headers = _HEADERS  # aiohttp only reads them
        self._size = None if isinstance(data, OneShot) else len(data)
        self.clock = clock
        self.sent_bytes = 0
        self._seen = (0, 0)
        self._writer: Any = None
        self.sent_at: float | None = None

    @property
    def source_error(self) -> Exception | None:
        """What the source of a one-shot image raised."""
        return self._data.error if isinstance(self._data, OneShot) else None

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """An image is no text."""
        raise NotImplementedError

    async def write(self, writer: AbstractStreamWriter) -> None:
        """See `Payload.write`."""
        await self.write_with_length(writer, None)

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Called once the connection is there. The length is that of the data."""
        self._writer = writer
        self.clock.connected(self._now())
        data = self._data
        if isinstance(data, OneShot):
            async for piece in data.chunks():
                await self._write(writer, piece)
        elif len(data) <= _ONE_PIECE_BYTES:
            await self._write(writer, data)
        else:
            view = memoryview(data)
            for start in range(0, len(view), CHUNK_BYTES):
                await self._write(writer, view[start : start + CHUNK_BYTES])
        self.sent_at = self._now()
        self.clock.sent(self.sent_at)

    def moved(self, now: float) -> bool:
        """Whether any of it left since this was asked last."""
        if self._writer is None:
            return False
        transport = self._writer.transport
        left = 0 if transport is None else transport.get_write_buffer_size()
        if (self.sent_bytes, left) == self._seen:
            return False
        self._seen = (self.sent_bytes, left)
        self.clock.progressed(now)
        return True

    async def _write(self, writer: AbstractStreamWriter, piece: bytes | memoryview) -> None:
        self.sent_bytes += len(piece)
        await writer.write(piece)
        self.clock.progressed(self._now())
