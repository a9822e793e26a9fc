"""Images that a client suspects of stopping workers: one at a time, and the client is told when."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import HttpVersion11

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

__all__ = ["Quarantine"]

# How long an image waits for its turn; then it goes with the others, as without the mark. Many
# answers of most models, and little of the time that is lost where a slow worker was stopped.
_WAIT_S: Final = 1.0
_BEGUN: Final = b"HTTP/1.1 102 Processing\r\n\r\n"


class Quarantine:
    """Takes the requests of one process that are marked `Fingerpost-Suspect` one at a time.

    After each, as long again passes before the next one, a second at most: no client can keep the
    others out by marking all its images.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, request: web.Request) -> AsyncIterator[bool]:
        """Wait for the turn of a request, and tell its client; False if it does not come soon."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._turn.acquire()
        except TimeoutError:
            yield False
            return
        began = loop.time()
        try:
            if request.transport is not None and request.version >= HttpVersion11:
                request.transport.write(_BEGUN)
            yield True
        finally:
            loop.call_later(min(loop.time() - began, _WAIT_S), self._turn.release)
