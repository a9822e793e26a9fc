"""Images that a client suspects of stopping workers: one at a time, and the client is told when."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

__all__ = ["Quarantine"]


class Quarantine:
    """Takes the requests of one process that are marked `Fingerpost-Suspect` one at a time.

    After each, as long again passes before the next one: no client can keep the others out by
    marking all its images.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, begin: Callable[[], object], limit_s: float) -> AsyncIterator[bool]:
        """Wait for the turn of a request, and tell its client; False if it does not come soon.

        Args:
            begin: tells the client that the worker begins with its image.
            limit_s: how long it waits; then it goes with the others, as without the mark. Some
                times what the model takes for an image (`Engine.alone_limit_s`), and little of the
                time that is lost where a slow worker was stopped.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limit_s):
                await self._turn.acquire()
        except TimeoutError:
            yield False
            return
        began = loop.time()
        try:
            begin()
            yield True
        finally:
            loop.call_later(min(loop.time() - began, limit_s), self._turn.release)
