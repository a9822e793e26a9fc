"""Return free memory to the system, where the C library is glibc.

glibc gives each thread a heap (an arena) of its own, and keeps up to 32 MB at the end of each;
`malloc_trim` frees only what lies elsewhere, and the end of the first heap. With hostile images of
all sizes a worker's memory never stopped growing: of 93 MB in heaps 80 were free. With one heap,
trimmed regularly, it stays at its size after a minute. Nothing became slower: TensorFlow with 2
decoding threads on 2 cores, in turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

__all__ = ["limit_malloc_arenas", "trim_regularly"]

_EVERY_S: Final = 10.0
_M_ARENA_MAX: Final = -8  # of malloc.h


def limit_malloc_arenas() -> None:
    """Let all threads that start later share one heap."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_ARENA_MAX, 1)


async def trim_regularly(app: web.Application) -> AsyncIterator[None]:
    """Trim the heap every 10 s while `app` runs (an aiohttp cleanup context)."""
    libc = _glibc()
    if libc is None:
        yield
        return
    task = asyncio.create_task(_trim(libc), name="heap trimmer")
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _glibc() -> ctypes.CDLL | None:
    with contextlib.suppress(OSError, TypeError):  # Windows has no library without a name
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            return libc
    return None


async def _trim(libc: ctypes.CDLL) -> None:
    while True:
        await asyncio.sleep(_EVERY_S)
        await asyncio.to_thread(libc.malloc_trim, 0)
