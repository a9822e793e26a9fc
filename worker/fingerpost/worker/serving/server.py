"""HTTP for a worker: aiohttp's server, with less on the way of what is asked thousands of times.

Measured on 20 KB bodies with a model that does nothing, aiohttp's router, middlewares and general
response take a fifth of a request's time. So a path that was answered before goes past the first
two (`Admission.shortcut`), and JSON for HTTP/1.1 is written as it is (`FastJsonResponse`).
Everything else is the application's.

Rejected: a protocol of our own on `httptools`. It would save the task that aiohttp makes for each
request, and take over chunks, pipelining, limits, `Expect`, cancellation and lingering.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

from fingerpost.registry import LOAD_HEADER

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

__all__ = ["FastJsonResponse", "WorkerRunner"]

Shortcut = Callable[[web.Request], Awaitable[web.StreamResponse] | None]


class FastJsonResponse(web.StreamResponse):
    """200 with JSON and a load report, written with its head at once.

    Only to HTTP/1.1 on a connection that stays open: `request.keep_alive`.
    """

    def __init__(self, request: web.Request, body: bytes, load: str) -> None:
        super().__init__()
        self._writer = request.writer
        self._json = body
        self._load = load

    @property
    def keep_alive(self) -> bool:
        """See above."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """The head goes with the body."""
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Send it all; waits where the client does not keep up."""
        body = self._json
        await self._writer.write_eof(
            b"%b%b\r\nContent-Length: %d\r\n\r\n%b"
            % (_head(int(time.time())), self._load.encode(), len(body), body)
        )


@lru_cache(maxsize=1)
def _head(second: int) -> bytes:
    return (
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        f"Date: {formatdate(second, usegmt=True)}\r\nServer: {SERVER_SOFTWARE}\r\n{LOAD_HEADER}: "
    ).encode()


class WorkerRunner(web.AppRunner):
    """Serves an application, but asks `shortcut` first.

    A client that goes away cancels its request.

    Args:
        headers_s: a connection is closed where a request's headers are not all here so long after
            its first byte, or after a new connection was made. Idle ones have `keepalive_timeout`.
        shutdown_timeout: seconds that requests have to end while it is cleaned up.
        options: of each connection, see `web.RequestHandler`.
    """

    def __init__(
        self,
        app: web.Application,
        shortcut: Shortcut,
        *,
        headers_s: float,
        shutdown_timeout: float,
        **options: Any,
    ) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout, handler_cancellation=True)
        self._shortcut = shortcut
        self._headers_s = headers_s
        self._options = options | {"access_log": None}

    async def _make_server(self) -> web.Server:
        whole = await super()._make_server()
        return _Server(whole, self._shortcut, self._headers_s, self._options)


class _Server(web.Server):
    """The application's server, but with the shortcut before its handler."""

    def __init__(
        self, whole: web.Server, shortcut: Shortcut, headers_s: float, options: dict[str, Any]
    ) -> None:
        super().__init__(
            self._answer,
            request_factory=whole.request_factory,
            handler_cancellation=whole.handler_cancellation,
        )
        self._whole = whole.request_handler
        self._shortcut = shortcut
        self._headers_s = headers_s
        self._options = options

    def __call__(self) -> _Connection:
        return _Connection(self, self._headers_s, self._options)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("_Connection", request.protocol)
        connection.asks()
        try:
            known = self._shortcut(cast("web.Request", request))
            return await (self._whole(request) if known is None else known)
        finally:
            connection.answered()


class _Connection(web.RequestHandler):
    """One client's. `_asked_at` is when it began to ask, while its headers are not all here."""

    __slots__ = ("_asked_at", "_asking", "_headers_s", "_watch")

    def __init__(self, server: web.Server, headers_s: float, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._headers_s = headers_s
        self._asked_at: float | None = None
        self._asking = False
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begins()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._asked_at is None and not self._asking:
            self._begins()
        super().data_received(data)

    def asks(self) -> None:
        """All headers of a request are here."""
        self._asked_at, self._asking = None, True

    def answered(self) -> None:
        """What comes now is the next request."""
        self._asking = False

    def _begins(self) -> None:
        self._asked_at = self._loop.time()
        if self._watch is None:  # one timer for many requests
            self._watch = self._loop.call_later(self._headers_s, self._look)

    def _look(self) -> None:
        self._watch = None
        if self._asked_at is None:
            return
        left_s = self._asked_at + self._headers_s - self._loop.time()
        if left_s <= 0:
            self.force_close()
        else:
            self._watch = self._loop.call_later(left_s, self._look)
