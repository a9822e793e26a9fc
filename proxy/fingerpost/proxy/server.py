"""HTTP for a proxy: aiohttp's server, with next to nothing on the way of `GET /`.

That is asked once for each image by clients that are no library, always in the same few words. So
bytes that aiohttp has read as a `GET /` before, on whichever connection, are answered without
being read again, which takes a quarter of the processor time. All else is aiohttp's: what comes in
pieces, with others, while an answer is under way, or over a connection whose client does not read.

Rejected: an HTTP server of our own on `httptools`, which would read each request anew, and take
over keep-alive, pipelining, limits, `Expect` and lingering.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.http import SERVER_SOFTWARE

__all__ = ["ProxyRunner", "learn"]

_START: Final = b"GET / HTTP/1.1\r\n"
_END: Final = b"\r\n\r\n"
_LONGEST: Final = 1024
_MOST: Final = 256  # heads that are remembered; what comes then is read
# As often at least a connection's requests are read, by which aiohttp knows that it is in use.
_READ_S: Final = 1.0
_OPTIONS: Final[dict[str, Any]] = {"access_log": None}

Address = Callable[[], str | None]


class ProxyRunner(web.AppRunner):
    """Serves an application, but answers what it has read before with `address`, if it has one.

    Args:
        address: `host:port` for the next `GET /`; None where that is to be read as all else.
        options: see `web.AppRunner`.
    """

    def __init__(self, app: web.Application, address: Address, **options: Any) -> None:
        super().__init__(app, **options)
        self._address = address

    async def _make_server(self) -> web.Server:
        whole = await super()._make_server()
        return _Server(whole, self._address)


def learn(request: web.Request) -> None:
    """Remember the bytes of a `GET /` that was answered with an address, if they may be."""
    connection = request.protocol
    if isinstance(connection, _Connection) and request.keep_alive and not request.can_read_body:
        connection.learn()


class _Server(web.Server):
    """The application's, but with connections that remember."""

    def __init__(self, whole: web.Server, address: Address) -> None:
        super().__init__(whole.request_handler, request_factory=whole.request_factory)
        self.address = address
        self.known: set[bytes] = set()

    def __call__(self) -> _Connection:
        return _Connection(self)


class _Connection(web.RequestHandler):
    """One client's.

    `_head` is what came last, if it may be a whole `GET /`; until `_read_at`, what is known is not
    read. It is the same request only where nothing of another one is in front of it: not while
    aiohttp's task is at work (`_waiter`), and not after the beginning of one (`_read_at`, which
    nothing but a whole one sets).
    """

    __slots__ = ("_head", "_known", "_next", "_read_at")

    def __init__(self, server: _Server) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **_OPTIONS)
        self._next = server.address
        self._known = server.known
        self._head: bytes | None = None
        self._read_at = 0.0

    def data_received(self, data: bytes) -> None:
        if data in self._known and self._loop.time() < self._read_at:
            waiter, transport = self._waiter, cast("asyncio.Transport", self.transport)
            idle = waiter is not None and not waiter.done()
            if idle and not transport.get_write_buffer_size() and (address := self._next()):
                transport.write(_answer(address, int(time.time())))
                return
        self._read_at = 0.0
        whole = data.startswith(_START) and data.find(_END) == len(data) - len(_END)
        self._head = data if whole and len(data) <= _LONGEST else None
        super().data_received(data)

    def learn(self) -> None:
        """What came last was a `GET /`, and nothing else."""
        if self._head is not None and len(self._known) < _MOST:
            self._known.add(self._head)
            self._read_at = self._loop.time() + _READ_S


@lru_cache(maxsize=4096)
def _answer(address: str, second: int) -> bytes:
    return (
        f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(address) + 1}\r\nDate: {formatdate(second, usegmt=True)}\r\n"
        f"Server: {SERVER_SOFTWARE}\r\n\r\n{address}\n"
    ).encode()
