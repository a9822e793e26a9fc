"""The HTTP server of a proxy: aiohttp's, with a fast path for `GET /`.

Clients without a library, such as curl, send `GET /` once for each image, always with the same
bytes. The bytes of a request that aiohttp has parsed as `GET /` are remembered, for all
connections. When the same bytes come again they are answered without parsing, which takes a quarter
of the processor time. All else goes to aiohttp: a request that comes in pieces, together with
others, while an answer is being written, or from a client that does not read its answers.

Rejected: an HTTP server of our own on `httptools`. It would parse each request, and would have to
do keep-alive, pipelining, limits, `Expect` and lingering itself.
"""

from __future__ import annotations

import time
from email.utils import formatdate
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from aiohttp import hdrs
from aiohttp.http import SERVER_SOFTWARE

from fingerpost.registry.connection import LimitedConnection, LimitedRunner, LimitedServer

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web

    from fingerpost.registry.connection import ConnectionGuard
    from fingerpost.registry.connection_config import ConnectionConfig

__all__ = ["ProxyRunner", "remember"]

_START: Final = b"GET / HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"
_MAX_HEAD_BYTES: Final = 1024
_MAX_HEADS: Final = 256  # heads that are remembered; all others are parsed
# A connection's request is parsed at least this often, so that aiohttp sees that it is in use.
_PARSE_EVERY_S: Final = 1.0


class Address(Protocol):
    """Returns the answer to the next `GET /`, or None to pass it to the application."""

    def __call__(self, *, plain: bool) -> str | None:
        """The answer; `plain` is `host:port` alone."""
        ...


class ProxyRunner(LimitedRunner):
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

    def _limited(self, application: web.Server) -> web.Server:
        return _Server(application, self._address, self.guard)


def remember(request: web.Request, *, plain: bool) -> None:
    """Remember the bytes of this `GET /`, if they may be answered without parsing next time.

    `plain` is which form of the answer they get.
    """
    connection = request.protocol
    plainly = request.keep_alive and not request.can_read_body
    # What a web page gets names the page, see `fingerpost.registry.cors`.
    if isinstance(connection, _Connection) and plainly and hdrs.ORIGIN not in request.headers:
        connection.remember(plain=plain)


class _Server(LimitedServer):
    """The application's server, with connections that have the fast path."""

    def __init__(self, application: web.Server, address: Address, guard: ConnectionGuard) -> None:
        super().__init__(application, guard)
        self.address = address
        self.known: dict[bytes, bool] = {}  # whether the answer is plain

    def __call__(self) -> _Connection:
        return _Connection(self)


class _Connection(LimitedConnection):
    """The connection of one client.

    `_head` holds the last received bytes if they may be a whole `GET /`. Known bytes are answered
    without parsing until the time `_parse_at`. They are a request only if no part of another
    request precedes them. So the fast path is closed while aiohttp handles a request (`_waiter`),
    and after other bytes, which reset `_parse_at`; only a whole `GET /` sets it.
    """

    __slots__ = ("_head", "_known", "_next", "_parse_at")

    def __init__(self, server: _Server) -> None:
        super().__init__(server, server.guard)
        self._next = server.address
        self._known = server.known
        self._head: bytes | None = None
        self._parse_at = 0.0

    def data_received(self, data: bytes) -> None:
        plain = self._known.get(data)
        if plain is not None and self._loop.time() < self._parse_at:
            waiter, transport = self._waiter, cast("asyncio.Transport", self.transport)
            idle = waiter is not None and not waiter.done()
            if (
                idle
                and not transport.get_write_buffer_size()
                and (address := self._next(plain=plain))
            ):
                transport.write(_answer(address, int(time.time())))
                return
        self._parse_at = 0.0
        whole = data.startswith(_START) and data.find(_END) == len(data) - len(_END)
        self._head = data if whole and len(data) <= _MAX_HEAD_BYTES else None
        super().data_received(data)

    def remember(self, *, plain: bool) -> None:
        """Remember the last received bytes, which were exactly one `GET /`."""
        if self._head is None:
            return
        if len(self._known) < _MAX_HEADS:
            self._known[self._head] = plain
        if self._head in self._known:
            self._parse_at = self._loop.time() + _PARSE_EVERY_S


@lru_cache(maxsize=4096)
def _answer(address: str, second: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(address) + 1}\r\nDate: {formatdate(second, usegmt=True)}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n\r\n{address}\n"
    ).encode()
