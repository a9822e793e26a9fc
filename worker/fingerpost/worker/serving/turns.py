"""Long work on the event loop, done in short pieces."""

from __future__ import annotations

import asyncio

__all__ = ["Turns"]


class Turns:
    """Lets one piece of long work run in each turn of the event loop, whoever it belongs to.

    JSON is decoded, and bytes are copied, with Python's lock held, so that a thread would not help.
    Such work is cut into pieces of some milliseconds, and awaits `next` after each one. With many
    large requests at once, each waits for the pieces of the others, and the loop goes on: it
    answers `GET /load` after one piece, not after one of each request.

    Rejected: `asyncio.sleep(0)` alone, after which all large requests have their piece in the same
    turn; a process for large requests, which would copy every body twice.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def next(self) -> None:
        """Return when it is this work's turn; in between, the loop did all that was ready."""
        async with self._lock:
            await asyncio.sleep(0)
