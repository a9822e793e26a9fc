"""The server that a proxy asks back: a machine on which no worker runs yet answers in its place."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from aiohttp import web

from fingerpost.client.reach import REACHED_PATH, SpeedMeter, filler, reached_body
from fingerpost.registry.http.app import bind, serve

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AskedBack"]


class AskedBack:
    """Answers one path, on all addresses, while inside `async with`.

    Args:
        nonce: the path's secret.
        port: 0 takes a free one.

    Attributes:
        port: the port that it listens on.
        meter: measures what a proxy sends; a new one for each question.

    Raises:
        ConfigurationError: another process has the port.
    """

    def __init__(self, nonce: str, port: int) -> None:
        self._nonce = nonce
        self.port = port
        self.meter = SpeedMeter()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        app = web.Application()
        path = f"{REACHED_PATH}{self._nonce}"
        app.router.add_get(path, self._get)
        app.router.add_post(path, self._post)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(runner.cleanup)
            listener = bind("0.0.0.0", self.port)  # noqa: S104 - as the worker will
            self.port = listener.getsockname()[1]
            await serve(runner, listener)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("measure") != "1":
            return web.Response(body=reached_body(self._nonce))
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in filler():
            await response.write(piece)
        return response

    async def _post(self, request: web.Request) -> web.Response:
        self.meter = meter = SpeedMeter()
        async for piece in request.content.iter_any():
            meter.add(len(piece), time.monotonic())
        return web.Response(body=reached_body(self._nonce))
