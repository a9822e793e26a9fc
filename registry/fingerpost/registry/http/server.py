"""Makes the connections of one HTTP server, and ends them."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import hdrs, web

from fingerpost.registry.http.connection import HttpConnection
from fingerpost.registry.http.context import ServerContext
from fingerpost.registry.http.guard import ConnectionGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from fingerpost.registry.http.connection_config import ConnectionConfig
    from fingerpost.registry.http.context import KnownPaths

    _Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

__all__ = ["HttpRunner", "HttpServer"]

# With aiohttp's 64 KB a client is paused and resumed, two system calls each time, several times for
# every photo.
_READ_BYTES: Final = 1 << 19


class HttpServer:
    """Makes the connections of one server, when it is called, and ends them.

    Args:
        application: aiohttp's server, whose requests and whose handler are used.
        guard: counts the connections.
        known: see `ServerContext`.
        numbers: likewise, beside `Content-Length`.
        prepare: changes a request before the application gets it.

    Attributes:
        guard: counts the connections.
        context: what the connections share.
    """

    def __init__(
        self,
        application: web.Server,
        guard: ConnectionGuard,
        *,
        known: KnownPaths | None = None,
        numbers: Iterable[str] = (),
        prepare: Callable[[web.Request], web.Request] | None = None,
    ) -> None:
        handler = cast("_Handler", application.request_handler)
        self.guard = guard
        self.context = ServerContext(
            guard=guard,
            make_request=cast("Callable[..., web.Request]", application.request_factory),
            handler=handler if prepare is None else lambda each: handler(prepare(each)),
            known=known,
            numbers=frozenset(each.lower() for each in (hdrs.CONTENT_LENGTH, *numbers)),
            cancels=application.handler_cancellation,
            read_bytes=_READ_BYTES,
        )
        self._connections: weakref.WeakSet[HttpConnection] = weakref.WeakSet()

    def __call__(self) -> HttpConnection:
        """The protocol of a new connection."""
        connection = self._connection()
        self._connections.add(connection)
        return connection

    @property
    def connections(self) -> list[HttpConnection]:
        """Those that are open, and perhaps some that have just been closed."""
        return list(self._connections)

    def _connection(self) -> HttpConnection:
        return HttpConnection(self.context)

    def pre_shutdown(self) -> None:
        """Close what is idle, and the others after their answer; `web.BaseRunner` calls it."""
        for each in self.connections:
            each.close()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Close all connections, after `timeout` also those at work."""
        await asyncio.gather(*(each.shutdown(timeout) for each in self.connections))


class HttpRunner(web.AppRunner):
    """Serves an application by connections with limits.

    Args:
        connections: the limits.
        known, numbers: see `HttpServer`.
        prepare: see `HttpServer`.
        options: see `web.AppRunner`.
    """

    def __init__(
        self,
        app: web.Application,
        connections: ConnectionConfig,
        *,
        known: KnownPaths | None = None,
        numbers: Iterable[str] = (),
        prepare: Callable[[web.Request], web.Request] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(app, **options)
        self.guard = ConnectionGuard(connections)
        self._known = known
        self._numbers = tuple(numbers)
        self._prepare = prepare

    async def _make_server(self) -> web.Server:  # what `web.BaseRunner` asks its subclasses for
        server = self._serve(await super()._make_server())
        return cast("web.Server", server)  # it uses no more of it than `HttpServer` has

    def _serve(self, application: web.Server) -> HttpServer:
        """The server that makes the connections."""
        return HttpServer(
            application,
            self.guard,
            known=self._known,
            numbers=self._numbers,
            prepare=self._prepare,
        )
