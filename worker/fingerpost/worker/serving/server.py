"""The worker's HTTP server: aiohttp's, with limits and a fast path.

Rejected: a protocol of our own on `httptools`. It would save the task that aiohttp makes for each
request, but have to handle chunks, pipelining, limits, `Expect`, cancellation and lingering.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from fingerpost.registry.connection import LimitedRunner, LimitedServer
from fingerpost.worker.serving.addressed import addressed

if TYPE_CHECKING:
    from fingerpost.registry.connection_config import ConnectionConfig

__all__ = ["WorkerRunner"]

# Answers a request, or returns None to leave it to the application.
FastHandler = Callable[[web.Request], Awaitable[web.StreamResponse] | None]


class WorkerRunner(LimitedRunner):
    """Serves an application, but asks `fast_handler` first.

    A client that goes away cancels its request.

    Args:
        connections: the limits of connections.
        shutdown_timeout: seconds that requests have to end during the cleanup.
        options: of each connection, see `web.RequestHandler`.
    """

    def __init__(
        self,
        app: web.Application,
        fast_handler: FastHandler,
        connections: ConnectionConfig,
        *,
        shutdown_timeout: float,
        **options: Any,
    ) -> None:
        super().__init__(
            app, connections, shutdown_timeout=shutdown_timeout, handler_cancellation=True
        )
        self._fast_handler = fast_handler
        self._options = options

    def _limited(self, application: web.Server) -> web.Server:
        fast_handler, handler = self._fast_handler, application.request_handler

        async def answer(request: web.BaseRequest) -> web.StreamResponse:
            response = fast_handler(cast("web.Request", request))
            if response is None:
                response = handler(addressed(cast("web.Request", request)))
            return await response

        return LimitedServer(application, self.guard, handler=answer, **self._options)
