"""An image that can be read only once: a pipe, an HTTP response, an iterator of its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any, Final, Protocol

__all__ = ["CHUNK_BYTES", "OneShot", "Readable"]

CHUNK_BYTES: Final = 1 << 18


class Readable(Protocol):
    """A file object opened in binary mode."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...


class OneShot:
    """An image that is sent while it is read, and is never in memory as a whole.

    It cannot be sent a second time: once `begun`, a failed attempt fails the image.

    Args:
        source: a file object or an iterator, which are read in a thread, or an async iterable.

    Attributes:
        begun: whether reading the source has begun.
    """

    __slots__ = ("_source", "begun")

    def __init__(self, source: Readable | Iterator[bytes] | AsyncIterable[bytes]) -> None:
        self._source = source
        self.begun = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        """The bytes of the image. Raises what the source raises."""
        self.begun = True
        if isinstance(self._source, AsyncIterable):
            async for chunk in self._source:
                yield chunk
        else:
            async with aclosing(_in_thread(self._source)) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _in_thread(source: Readable | Iterator[bytes]) -> AsyncGenerator[bytes]:
    # A file object is an iterator too, but one of lines.
    read = getattr(source, "read", None)
    chunks: Any = source if read is None else iter(partial(read, CHUNK_BYTES), b"")
    loop = asyncio.get_running_loop()
    while (chunk := await loop.run_in_executor(None, partial(next, chunks, None))) is not None:
        yield chunk
