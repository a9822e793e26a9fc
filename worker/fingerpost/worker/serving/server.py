"""The worker's HTTP server: aiohttp's, with a fast path and a limit on the time of headers.

Rejected: a protocol of our own on `httptools`. It would save the task that aiohttp makes for each
request, but have to handle chunks, pipelining, limits, `Expect`, cancellation and lingering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web

from fingerpost.worker.serving.addressed import addressed

__all__ = ["WorkerRunner"]

# Answers a request, or returns None to leave it to the application.
FastHandler = Callable[[web.Request], Awaitable[web.StreamResponse] | None]


class WorkerRunner(web.AppRunner):
    """Serves an application, but asks `fast_handler` first.

    A client that goes away cancels its request.

    Args:
        headers_s: seconds after which a connection is closed unless all headers of a request have
            arrived, from the request's first byte, or from the start of a new connection. Idle
            connections have `keepalive_timeout`.
        shutdown_timeout: seconds that requests have to end during the cleanup.
        options: of each connection, see `web.RequestHandler`.
    """

    def __init__(
        self,
        app: web.Application,
        fast_handler: FastHandler,
        *,
        headers_s: float,
        shutdown_timeout: float,
        **options: Any,
    ) -> None:
        super().__init__(app, shutdown_timeout=shutdown_timeout, handler_cancellation=True)
        self._fast_handler = fast_handler
        self._headers_s = headers_s
        self._options = options | {"access_log": None}

    async def _make_server(self) -> web.Server:  # what `web.BaseRunner` asks its subclasses for
        application = await super()._make_server()
        return _Server(application, self._fast_handler, self._headers_s, self._options)


class _Server(web.Server):
    """The application's server, with the fast handler before its own."""

    def __init__(
        self,
        application: web.Server,
        fast_handler: FastHandler,
        headers_s: float,
        options: dict[str, Any],
    ) -> None:
        super().__init__(
            self._answer,
            request_factory=application.request_factory,
            handler_cancellation=application.handler_cancellation,
        )
        self._handler = application.request_handler
        self._fast_handler = fast_handler
        self._headers_s = headers_s
        self._options = options

    def __call__(self) -> _Connection:
        return _Connection(self, self._headers_s, self._options)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast("_Connection", request.protocol)
        connection.headers_received()
        try:
            response = self._fast_handler(cast("web.Request", request))
            if response is None:
                response = self._handler(addressed(cast("web.Request", request)))
            return await response
        finally:
            connection.answered()


class _Connection(web.RequestHandler):
    """A client's connection; it is closed if the headers of a request take too long.

    `_began_at` is the time of a request's first byte while its headers are incomplete; else None.
    """

    __slots__ = ("_answering", "_began_at", "_clock", "_headers_s", "_timer")

    def __init__(self, server: web.Server, headers_s: float, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self._clock = loop
        self._headers_s = headers_s
        self._began_at: float | None = None
        self._answering = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._began_at is None and not self._answering:
            self._begin()
        super().data_received(data)

    def headers_received(self) -> None:
        """Note that all headers of a request have arrived."""
        self._began_at, self._answering = None, True

    def answered(self) -> None:
        """Note that a request was answered: later bytes are the next request's."""
        self._answering = False

    def _begin(self) -> None:
        self._began_at = self._clock.time()
        if self._timer is None:  # one timer for many requests
            self._timer = self._clock.call_later(self._headers_s, self._check_headers)

    def _check_headers(self) -> None:
        self._timer = None
        if self._began_at is None:
            return
        left_s = self._began_at + self._headers_s - self._clock.time()
        if left_s <= 0:
            self.force_close()
        else:
            self._timer = self._clock.call_later(left_s, self._check_headers)
