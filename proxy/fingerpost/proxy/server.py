"""The HTTP server of a proxy, with a fast path for `GET /`.

Clients without a library, such as curl, send `GET /` once for each image, always with the same
bytes. The bytes of a request that was read as `GET /` are remembered, for all connections. When the
same bytes come again they are answered without being read, which takes a quarter of the processor
time. All else is read: a request that comes in pieces, together with others, while an answer is
being written, or from a client that does not read its answers.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiohttp import hdrs
from aiohttp.http import SERVER_SOFTWARE

from fingerpost.registry.http.connection import HttpConnection
from fingerpost.registry.http.server import HttpRunner, HttpServer

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.registry.http.connection_config import ConnectionConfig
    from fingerpost.registry.http.guard import ConnectionGuard

__all__ = ["ProxyRunner", "remember"]

_START: Final = b"GET / HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 1024
_MAX_HEADS: Final = 256  # heads that are remembered; all others are read


class Address(Protocol):
    """Returns the answer to the next `GET /`, or None to pass it to the application."""

    def __call__(self, *, plain: bool) -> str | None:
        """The answer; `plain` is `host:port` alone."""
        ...


class ProxyRunner(HttpRunner):
    """Serves an application, and answers known requests for `GET /` by `address`.

    Args:
        app: the application, for all other requests.
        address: see `Address`.
        connections: the limits of connections.
        options: see `web.AppRunner`.
    """

    def __init__(
        self, app: web.Application, address: Address, connections: ConnectionConfig, **options: Any
    ) -> None:
        super().__init__(app, connections, **options)
        self._address = address

    def _serve(self, application: web.Server) -> HttpServer:
        return _Server(application, self._address, self.guard)


def remember(request: web.Request, *, plain: bool) -> None:
    """Remember the bytes of this `GET /`, if they may be answered without being read next time.

    `plain` is which form of the answer they get.
    """
    connection = request.protocol
    plainly = request.keep_alive and not request.can_read_body
    # What a web page gets names the page, see `fingerpost.registry.http.cors`.
    if isinstance(connection, _Connection) and plainly and hdrs.ORIGIN not in request.headers:
        connection.remember(plain=plain)


class _Server(HttpServer):
    """The application's server, with connections that have the fast path."""

    def __init__(self, application: web.Server, address: Address, guard: ConnectionGuard) -> None:
        super().__init__(application, guard)
        self.address = address
        self.heads: dict[bytes, bool] = {}  # whether the answer is plain

    def _connection(self) -> _Connection:
        return _Connection(self)


class _Connection(HttpConnection):
    """The connection of one client.

    `_head` holds the last received bytes if they may be a whole `GET /`. They are a request only if
    no part of another request precedes them: if the connection is idle.
    """

    def __init__(self, server: _Server) -> None:
        super().__init__(server.context)
        self._address = server.address
        self._heads = server.heads
        self._head: bytes | None = None

    def data_received(self, data: bytes) -> None:
        plain = self._heads.get(data)
        idle = self.idle
        if plain is not None and idle and (address := self._address(plain=plain)):
            self.write(_answer(address, int(time.time())))
            self.touch()
            return
        whole = idle and data.startswith(_START) and data.find(_END) == len(data) - len(_END)
        self._head = data if whole and len(data) <= _MAX_HEAD_BYTES else None
        super().data_received(data)

    def remember(self, *, plain: bool) -> None:
        """Remember the last received bytes, which were exactly one `GET /`."""
        if self._head is not None and len(self._heads) < _MAX_HEADS:
            self._heads[self._head] = plain


@lru_cache(maxsize=4096)
def _answer(address: str, second: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(address) + 1}\r\nDate: {formatdate(second, usegmt=True)}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n\r\n{address}\n"
    ).encode()
