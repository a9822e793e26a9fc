"""An image that can be read only once: a pipe, a socket's answer, an iterator of its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Iterator
from contextlib import aclosing
from functools import partial
from typing import Final, Protocol

__all__ = ["CHUNK_BYTES", "OneShot", "Readable"]

CHUNK_BYTES: Final = 1 << 18


class Readable(Protocol):
    """A file object opened for bytes."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` bytes; empty at the end."""
        ...


class OneShot:
    """It is sent while it is read, and is never held whole.

    Nothing of it can be sent again: once `begun`, a failed attempt is the image's failure.

    Args:
        source: a file object or an iterator, both read in a thread, or an async iterable.

    Attributes:
        begun: whether anything was taken from the source.
    """

    __slots__ = ("_source", "begun")

    def __init__(self, source: Readable | Iterator[bytes] | AsyncIterable[bytes]) -> None:
        self._source = source
        self.begun = False

    async def chunks(self) -> AsyncGenerator[bytes]:
        """Its bytes. Raises what the source raises."""
        self.begun = True
        if isinstance(self._source, AsyncIterable):
            async for chunk in self._source:
                yield chunk
        else:
            async with aclosing(_in_thread(self._source)) as chunks:
                async for chunk in chunks:
                    yield chunk


async def _in_thread(source: Readable | Iterator[bytes]) -> AsyncGenerator[bytes]:
    # A file object is an iterator as well, of lines.
    chunks = source if not hasattr(source, "read") else iter(partial(source.read, CHUNK_BYTES), b"")
    loop = asyncio.get_running_loop()
    while (chunk := await loop.run_in_executor(None, next, chunks, None)) is not None:
        yield chunk
