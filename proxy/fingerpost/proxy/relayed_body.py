"""The body of a request that is relayed: counted, and given up where it stalls or is too slow."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fingerpost.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web

    from fingerpost.proxy.config import ProxyConfig
    from fingerpost.proxy.metrics import ProxyMetrics

__all__ = ["RelayedBody"]

# For how long the rate of an upload is measured before it is judged, in seconds.
_RATE_S: Final = 20.0


class RelayedBody:
    """Reads the body of one request, within the limits that a worker has, too.

    Only the time for which it waits for the client counts: a worker may take the body slowly.

    Attributes:
        sent: how many bytes were read, and so sent on.
        refusal: why the body was given up; None if it was not.
        moved_at: when the last piece was read, in the event loop's time.
    """

    def __init__(self, request: web.Request, config: ProxyConfig, metrics: ProxyMetrics) -> None:
        self._content = request.content
        self._pause_s = config.body_timeout_s
        self._rate = config.min_upload_rate
        self._metrics = metrics
        self._now = asyncio.get_running_loop().time
        self._waited_s = 0.0
        self._judged = 0
        self.sent = 0
        self.refusal: InvalidRequest | None = None
        self.moved_at = self._now()

    @property
    def whole(self) -> bool:
        """Whether all of it was read."""
        return self._content.at_eof()

    async def pieces(self) -> AsyncIterator[bytes]:
        """The pieces as they come.

        Raises:
            InvalidRequest: it stalls or is too slow; it is also kept in `refusal`.
        """
        metrics = self._metrics
        while piece := await self._next():
            count = len(piece)
            self.sent += count
            metrics.body_bytes.inc(count)
            metrics.relayed_bytes.inc(count)
            yield piece

    async def _next(self) -> bytes:
        began = self._now()
        try:
            async with asyncio.timeout(self._pause_s):
                piece = await self._content.readany()
        except TimeoutError:
            raise self._refused(f"the body stalled: no byte came for {self._pause_s:g} s") from None
        self.moved_at = self._now()
        self._waited_s += self.moved_at - began
        if self._waited_s > _RATE_S:
            count = self.sent + len(piece) - self._judged
            if count < self._rate * self._waited_s and not self.whole:
                raise self._refused(
                    f"the body arrives too slowly: {count:,} bytes in {self._waited_s:.0f} s, "
                    f"fewer than {self._rate:g} a second"
                )
            self._judged, self._waited_s = self.sent + len(piece), 0.0
        return piece

    def _refused(self, why: str) -> InvalidRequest:
        self.refusal = InvalidRequest(why)
        return self.refusal
