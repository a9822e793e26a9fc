"""A server with one known path and one of the application, and raw bytes to it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from fingerpost.registry.http.app import bind, serve
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.http.context import PlainHandler
from fingerpost.registry.http.request import PlainRequest
from fingerpost.registry.http.server import HttpRunner

__all__ = ["Echo"]


class Echo:
    """Answers with the length and the checksum of each body, on a known path and by aiohttp.

    Attributes:
        port: where it listens.
        seen: method, path, and body length of each request that a handler got.
        wait: is awaited before a body is read.
        left: the address of each client that left during its request.
    """

    def __init__(self) -> None:
        self.port = 0
        self.seen: list[tuple[str, str, int]] = []
        self.wait = asyncio.Event()
        self.wait.set()
        self.left: list[str | None] = []

    @asynccontextmanager
    async def listening(self, limits: ConnectionConfig | None = None) -> AsyncIterator[Echo]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._by_aiohttp)
        runner = HttpRunner(
            app,
            limits or ConnectionConfig(),
            known=self._known,
            handler_cancellation=True,
            shutdown_timeout=0.5,
        )
        await runner.setup()
        await serve(runner, bind("127.0.0.1", 0))
        self.runner = runner
        self.port = runner.addresses[0][1]
        yield self
        await runner.cleanup()

    def busy(self) -> bool:
        """Whether a request is being answered."""
        server: Any = self.runner.server
        return any(each._busy for each in server.connections)

    def _known(self, request: PlainRequest) -> PlainHandler | bytes | None:
        if request.path == "/fault":
            raise ZeroDivisionError
        if request.path == "/now" and request.method == "GET" and not request.content_length:
            return (
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnow" if request.keep_alive else None
            )
        return self._plain if request.path == "/plain" else None

    async def _plain(self, request: PlainRequest) -> web.Response:
        try:
            await self.wait.wait()
            body = bytearray()
            while piece := await request.content.readany():
                body += piece
        except asyncio.CancelledError:
            self.left.append(request.remote)
            raise
        return self._answer(request.method, request.raw_path, bytes(body))

    async def _by_aiohttp(self, request: web.Request) -> web.Response:
        try:
            await self.wait.wait()
            body = b"".join([piece async for piece in request.content.iter_any()])
        except asyncio.CancelledError:
            self.left.append(request.remote)
            raise
        return self._answer(request.method, request.raw_path, body)

    def _answer(self, method: str, path: str, body: bytes) -> web.Response:
        self.seen.append((method, path, len(body)))
        return web.Response(text=f"{path} {len(body)} {zlib.crc32(body)}")


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with Echo().listening() as server:
        yield server
