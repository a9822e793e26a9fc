"""A client's connection to one of Fingerpost's HTTP servers, within limits.

aiohttp has no limit on the time of headers, on the number of connections, or on what one reading
of a socket may cost, and answers what is not HTTP in plain text and with a traceback in the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import hdrs, web

from fingerpost.basics.log_limit import LogLimit
from fingerpost.basics.remote_network import remote_network
from fingerpost.errors import InvalidRequest, Overloaded
from fingerpost.registry.descriptors import descriptor_limit
from fingerpost.registry.http_server import error_response
from fingerpost.registry.refusals import REFUSED_CONNECTIONS
from fingerpost.registry.unix_listener import client_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.registry.connection_config import ConnectionConfig

__all__ = ["ConnectionGuard", "LimitedConnection", "LimitedRunner", "LimitedServer"]

logger = logging.getLogger(__name__)

# What is parsed in one turn of the event loop, except of a body whose length is known: chunks of a
# byte take 0.2 us each, and 256 KB of them, as much as is read at once, held the loop for 80 ms.
_SLICE_BYTES: Final = 1 << 14
# Requests whose body follows at once are recognized by a short head; a longer one is sliced.
_MAX_SIZED_HEAD: Final = 1 << 10
_SIZED: Final = re.compile(rb"\r\ncontent-length: ?([0-9]{1,12})\r\n", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"transfer-encoding", re.IGNORECASE)
_MAX_MESSAGE: Final = 200
# What aiohttp quotes of a request, `b'Authorization: Bearer ...'`: a header's name may be shown,
# and the rest never, because it may be a key, a lease or a URL with one.
_QUOTED: Final = re.compile(
    r"""(?:(?<=[\s(])|^)(?:bytearray\()?b?["'](?P<name>[A-Za-z0-9-]{1,40}(?=\s*:))?.*""",
    re.DOTALL,
)


class ConnectionGuard:
    """Counts the connections of one server, and refuses what exceeds the limits.

    Attributes:
        config: the limits.
        open: connections open now.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self.config = config
        self._most = config.max_connections or max(16, descriptor_limit() * 3 // 4)
        per_client = config.max_per_client
        self._most_per_client = max(8, self._most // 2) if per_client is None else per_client
        self._clients: Counter[str] = Counter()
        self._log = LogLimit()
        self.open = 0

    def enter(self, client: str) -> bool:
        """Count a connection of a client's address; False if it must be refused."""
        network = remote_network(client)
        if self.open >= self._most:
            why = f"{self.open} are open, the most there may be"
            self._refuse(client, "max_connections", why)
            return False
        if self._most_per_client and client:
            if self._clients[network] >= self._most_per_client:
                why = f"{network} has {self._most_per_client}, the most of one address or IPv6 /64"
                self._refuse(client, "max_per_client", why)
                return False
            self._clients[network] += 1
        self.open += 1
        return True

    def leave(self, client: str) -> None:
        """Count one connection less."""
        self.open -= 1
        if self._most_per_client and client:
            network = remote_network(client)
            self._clients[network] -= 1
            if not self._clients[network]:
                del self._clients[network]

    def _refuse(self, client: str, reason: str, why: str) -> None:
        REFUSED_CONNECTIONS[reason] += 1
        if count := self._log.count(time.monotonic()):
            logger.warning("refused %d connections, the last from %s: %s", count, client, why)


class LimitedConnection(web.RequestHandler):
    """The connection of one client.

    It is closed if the headers of a request take longer than `headers_timeout_s`, from their first
    byte or from the start of a new connection on; and if it is idle for `idle_timeout_s`.

    `_began_at` is the time of a request's first byte while its headers are incomplete; else None.
    `_body_left` is how much is still to come of a body whose length is known. `_backlog` was read,
    and is parsed in later turns of the loop.
    """

    __slots__ = (
        "_backlog",
        "_began_at",
        "_body_left",
        "_client",
        "_guard",
        "_slicing",
        "_timer",
    )

    def __init__(self, server: web.Server, guard: ConnectionGuard, **options: Any) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=cast("logging.Logger", None),  # aiohttp means: none
            keepalive_timeout=guard.config.idle_timeout_s,
            **options,
        )
        self._guard = guard
        self._client: str | None = None  # None: not counted, because it is refused or over
        self._began_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._body_left = 0
        self._backlog: memoryview = memoryview(b"")
        self._slicing = False

    @property
    def peername(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The address of the client; of one at a Unix socket, its user."""
        peer = None if self.transport is None else self.transport.get_extra_info("peername")
        return peer or (self._client or "", 0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client = client_name(transport)
        if not self._guard.enter(client):
            writer = cast("asyncio.Transport", transport)
            writer.write(_REFUSAL)
            writer.close()
            return
        self._client = client
        super().connection_made(transport)
        self._begin()

    def connection_lost(self, exc: BaseException | None) -> None:
        client, self._client = self._client, None
        if client is None:
            return
        self._guard.leave(client)
        if self._timer is not None:
            self._timer.cancel()
        self._backlog = memoryview(b"")
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not data:  # aiohttp goes on with what it has
            self._parse(data)
        elif self._backlog:
            self._backlog = memoryview(b"".join((self._backlog, data)))
        elif len(data) <= _SLICE_BYTES or self._body_left >= len(data) or self._is_sized(data):
            self._parse(data)
        else:
            self._slice(memoryview(data))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP as every other error is answered, without a traceback."""
        if status != 400 or request.writer.output_size:
            return super().handle_error(request, status, exc, message)
        why = _QUOTED.sub(_without_values, " ".join((message or "").split()))[:_MAX_MESSAGE]
        logger.debug("%s sent what is not valid HTTP: %s", request.remote, why)
        response = error_response(InvalidRequest(f"this is not a valid HTTP request: {why}"))
        response.force_close()
        return response

    def _parse(self, data: bytes | memoryview) -> None:
        """Pass bytes to aiohttp, and note where in a request they end."""
        if self._client is None:
            return
        requests = self._request_count
        super().data_received(cast("bytes", data))
        if self._request_count != requests:
            self._began_at = None
            self._body_left = 0
            message, body = self._messages[-1]
            if not body.is_eof() and (headers := getattr(message, "headers", None)):
                length = headers.get(hdrs.CONTENT_LENGTH, "")
                self._body_left = int(length) - body.total_bytes if length.isdigit() else 0
        elif self._body_left:
            self._body_left = max(0, self._body_left - len(data))
        elif self._began_at is None and data:
            waiter = self._waiter
            if waiter is not None and not waiter.done():  # no request is being answered
                self._begin()

    def _is_sized(self, data: bytes) -> bool:
        """Whether it is a request from its first byte on, with a body of a known length."""
        if self._began_at is not None or (waiter := self._waiter) is None or waiter.done():
            return False
        end = data.find(b"\r\n\r\n", 0, _MAX_SIZED_HEAD)
        sized = _SIZED.search(data, 0, end + 2) if end > 0 else None
        return (
            sized is not None
            and int(sized[1]) >= len(data) - end - 4
            and _CHUNKED.search(data, 0, end) is None
        )

    def _slice(self, data: memoryview) -> None:
        """Parse the first slice now, and the rest in later turns, unless it is of a long body."""
        self._backlog = data[_SLICE_BYTES:]
        self._parse(data[:_SLICE_BYTES])
        rest = self._backlog
        if len(rest) <= self._body_left or not rest or self._client is None:
            self._backlog = memoryview(b"")
            if rest:
                self._parse(rest)
            self._resume_transport_reading()
            return
        self._pause_transport_reading()
        if not self._slicing:
            self._slicing = True
            self._loop.call_soon(self._next_slice)

    def _next_slice(self) -> None:
        self._slicing = False
        if not self._backlog or self._reading_paused or self._buffer_paused:
            return  # aiohttp resumes it
        self._slice(self._backlog)

    def resume_reading(self, resume_parser: bool = True) -> None:  # noqa: FBT001, FBT002 - aiohttp's
        """Go on with what was read already, before more is read."""
        super().resume_reading(resume_parser)
        self._continue()

    def _resume_reading_if_drained(self) -> None:
        super()._resume_reading_if_drained()
        self._continue()

    def _continue(self) -> None:
        if self._backlog and not self._slicing:
            self._slicing = True
            self._loop.call_soon(self._next_slice)

    def _resume_transport_reading(self) -> None:
        if not self._backlog and not self._reading_paused and not self._buffer_paused:
            super()._resume_transport_reading()

    def _begin(self) -> None:
        self._began_at = self._loop.time()
        if self._timer is None:  # one timer for many requests
            self._timer = self._loop.call_later(
                self._guard.config.headers_timeout_s, self._check_headers
            )

    def _check_headers(self) -> None:
        self._timer = None
        if self._began_at is None:
            return
        left_s = self._began_at + self._guard.config.headers_timeout_s - self._loop.time()
        if left_s <= 0:
            self.force_close()
        else:
            self._timer = self._loop.call_later(left_s, self._check_headers)


class LimitedRunner(web.AppRunner):
    """Serves an application by limited connections.

    Args:
        connections: the limits.
        options: see `web.AppRunner`.
    """

    def __init__(self, app: web.Application, connections: ConnectionConfig, **options: Any) -> None:
        super().__init__(app, **options)
        self.guard = ConnectionGuard(connections)

    async def _make_server(self) -> web.Server:  # what `web.BaseRunner` asks its subclasses for
        return self._limited(await super()._make_server())

    def _limited(self, application: web.Server) -> web.Server:
        """The server that makes the connections, which answer by the application's server."""
        return LimitedServer(application, self.guard)


class LimitedServer(web.Server):
    """Makes limited connections, whose requests are handled by another server's handler.

    Args:
        handler: handles them instead.
        options: of each connection, see `web.RequestHandler`.
    """

    def __init__(
        self,
        application: web.Server,
        guard: ConnectionGuard,
        *,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(
            handler or application.request_handler,
            request_factory=application.request_factory,
            handler_cancellation=application.handler_cancellation,
        )
        self.guard = guard
        self._options = options

    def __call__(self) -> LimitedConnection:
        return LimitedConnection(self, self.guard, **self._options)


def _refusal() -> bytes:
    error = Overloaded(
        "too many connections are open here: use another server, or try again in a second",
        retry_after_s=1.0,
    )
    body = error.to_json()
    return (
        b"HTTP/1.1 %d Too Many Requests\r\nContent-Type: application/json\r\nRetry-After: %d\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
        % (error.status, math.ceil(error.retry_after_s or 1), len(body), body)
    )


_REFUSAL: Final = _refusal()


def _without_values(quoted: re.Match[str]) -> str:
    name = quoted["name"]
    return f"in the header {name}" if name else "(what was sent is not shown)"
