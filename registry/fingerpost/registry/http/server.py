"""Makes the connections of one HTTP server, and ends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from fingerpost.registry.http.connection import HttpConnection
from fingerpost.registry.http.guard import ConnectionGuard

if TYPE_CHECKING:
    from fingerpost.registry.connection_config import ConnectionConfig
    from fingerpost.registry.http.answers import PlainHandler
    from fingerpost.registry.http.request import PlainRequest

__all__ = ["HttpRunner", "HttpServer", "KnownPaths"]

# Bytes of a body that wait for its handler before the client is paused. With aiohttp's 64 KB it is
# paused and resumed, two system calls each time, several times for every photo.
_READ_BYTES: Final = 1 << 19

# Finds the handler of a request on a known path, or the whole answer to one without a body that
# keeps its connection. None leaves it to the application.
KnownPaths = Callable[["PlainRequest"], "PlainHandler | bytes | None"]


class HttpServer:
    """What the connections of one server share; calling it makes one.

    Args:
        application: aiohttp's server, whose requests and whose handler are used.
        guard: counts the connections.
        known: the paths that go past the application.
        prepare: changes a request before the application gets it.

    Attributes:
        connections: those that are open.
        cancels: whether a client that goes away cancels its request.
    """

    def __init__(
        self,
        application: web.Server,
        guard: ConnectionGuard,
        *,
        known: KnownPaths | None = None,
        prepare: Callable[[web.Request], web.Request] | None = None,
    ) -> None:
        self.guard = guard
        self.known = known
        self.cancels = application.handler_cancellation
        self.connections: set[HttpConnection] = set()
        self.headers_timeout_s = guard.config.headers_timeout_s
        self.idle_timeout_s = guard.config.idle_timeout_s
        self.read_bytes = _READ_BYTES
        self._prepare = prepare
        self.make_request = cast("Callable[..., web.Request]", application.request_factory)
        self._handler = application.request_handler

    def __call__(self) -> HttpConnection:
        """The protocol of a new connection."""
        return HttpConnection(self)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """The application's response."""
        return await self._handler(request if self._prepare is None else self._prepare(request))

    def pre_shutdown(self) -> None:
        """Close what is idle, and the others after their answer; `web.BaseRunner` calls it."""
        for each in tuple(self.connections):
            each.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close all connections, after `timeout` also those at work."""
        await asyncio.gather(*(each.shutdown(timeout) for each in tuple(self.connections)))


class HttpRunner(web.AppRunner):
    """Serves an application by connections with limits.

    Args:
        connections: the limits.
        known: see `HttpServer`.
        prepare: see `HttpServer`.
        options: see `web.AppRunner`.
    """

    def __init__(
        self,
        app: web.Application,
        connections: ConnectionConfig,
        *,
        known: KnownPaths | None = None,
        prepare: Callable[[web.Request], web.Request] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self.guard = ConnectionGuard(connections)
        self._known = known
        self._prepare = prepare

    async def _make_server(self) -> web.Server:  # what `web.BaseRunner` asks its subclasses for
        server = self._serve(await super()._make_server())
        return cast("web.Server", server)  # it uses no more of it than `HttpServer` has

    def _serve(self, application: web.Server) -> HttpServer:
        """The server that makes the connections."""
        return HttpServer(application, self.guard, known=self._known, prepare=self._prepare)
