"""What Fingerpost's HTTP servers share: a port, JSON answers, and how errors are written."""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import ClientPayloadError, hdrs, web

from fingerpost.errors import (
    ConfigurationError,
    FingerpostError,
    InvalidRequest,
    MethodNotAllowed,
    UnknownPath,
)
from fingerpost.registry.http.descriptors import SpareDescriptor
from fingerpost.registry.instance import format_address

if TYPE_CHECKING:
    from aiohttp.typedefs import Middleware

    from fingerpost.security.tls import ServerTls

__all__ = [
    "ErrorForm",
    "Handler",
    "bind",
    "error_response",
    "internal_error",
    "json_response",
    "serve",
    "typed_errors",
]

logger = logging.getLogger(__name__)

_BACKLOG: Final = 1024
# A lease in a path, see `LEASE_PATH` in fingerpost.client.wire.
_LEASE: Final = re.compile("/lease/[^/?]*")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
# Makes of an error the body of its response, which is JSON.
ErrorForm = Callable[[FingerpostError], bytes]


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket that does not listen yet; port 0 picks a free port.

    Raises:
        ConfigurationError: the port is in use, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {host!r}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


async def serve(
    runner: web.AppRunner, listener: socket.socket, tls: ServerTls | None = None
) -> web.SockSite:
    """Listen on a bound socket with a runner that is set up; close the socket where that fails.

    Args:
        runner: its server makes limited connections, where TLS is given.
        listener: the socket.
        tls: the certificate to speak TLS with; None speaks plain HTTP.

    Raises:
        ConfigurationError: another process that bound the same port listens on it already.
    """
    site = _Site(runner, listener, tls)
    try:
        await site.start()
    except OSError as error:
        address = listener.getsockname()
        listener.close()
        if isinstance(address, str):
            raise ConfigurationError(f"cannot listen on {address}: {error.strerror}") from error
        raise _cannot_listen(address[0], address[1], error) from error
    return site


class _Site(web.SockSite):
    """A site that can be out of descriptors, and whose stop leaves no connection open.

    asyncio accepts a connection in one turn of its loop and makes the transport in the next one. If
    the server closes in between, that fails, and the socket stays open without anyone to read it
    (https://github.com/python/cpython/issues/109564).
    """

    def __init__(
        self, runner: web.AppRunner, listener: socket.socket, tls: ServerTls | None
    ) -> None:
        super().__init__(runner, listener, backlog=_BACKLOG)
        self._tls = tls

    async def start(self) -> None:
        if self._tls is None:
            await super().start()
        else:
            await self._start_tls(self._tls)
        self._spare = SpareDescriptor(self._sock)

    async def _start_tls(self, tls: ServerTls) -> None:
        from fingerpost.registry.http.tls import TlsConnections

        await web.BaseSite.start(self)
        server: Any = self._runner.server
        self._server = await asyncio.get_running_loop().create_server(
            TlsConnections(server, server.guard, tls), sock=self._sock, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        self._spare.close()
        asyncio.get_running_loop().remove_reader(self._sock)
        await asyncio.sleep(0)
        await super().stop()


def _cannot_listen(host: str, port: int, error: OSError) -> ConfigurationError:
    if error.errno == errno.EADDRNOTAVAIL:
        remedy = "give an address of this machine as host, or 0.0.0.0 for all of them"
    else:
        remedy = "give another port (--port), or 0 for a free one"
    return ConfigurationError(
        f"cannot listen on {format_address(host, port)}: {error.strerror}; {remedy}"
    )


def json_response(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """A response with a msgspec struct or plain value as its JSON body."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers=headers,
    )


def error_response(
    error: FingerpostError, *, form: ErrorForm = FingerpostError.to_json
) -> web.Response:
    """The response for an error, with its HTTP status and `Retry-After` in whole seconds.

    Args:
        form: makes the body; by default `{"error": {"code", "message", "retryable"}}`.
    """
    headers = {}
    if error.retry_after_s is not None:
        headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after_s))
    if error.status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"  # RFC 9110 requires it, RFC 6750 names it
    return web.Response(
        body=form(error),
        status=error.status,
        content_type="application/json",
        headers=headers,
    )


def internal_error() -> FingerpostError:
    """The error for a fault of this server, whose traceback goes to its log."""
    return FingerpostError("internal error of this server: see its log")


def typed_errors(hint: str, *, form_of: Callable[[str], ErrorForm] | None = None) -> Middleware:
    """A middleware that answers every failure by the response for its error.

    Args:
        hint: what an unknown path is answered with, such as `images go to POST /`.
        form_of: the form of errors for a path; by default that of `error_response` for all paths.
    """

    def respond(request: web.Request, error: FingerpostError) -> web.Response:
        if form_of is None:
            return error_response(error)
        return error_response(error, form=form_of(request.path))

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except FingerpostError as error:
            return respond(request, error)
        except web.HTTPNotFound:
            return respond(request, UnknownPath(f"there is nothing at {_shown(request)}: {hint}"))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            response = respond(
                request,
                MethodNotAllowed(
                    f"{request.method} {_shown(request)} is not allowed: use {allowed}"
                ),
            )
            response.headers[hdrs.ALLOW] = allowed
            return response
        except ClientPayloadError as error:
            return respond(request, InvalidRequest(f"the body cannot be read: {error}"))
        except (web.HTTPException, asyncio.CancelledError):
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, _shown(request))
            return respond(request, internal_error())

    return middleware


def _shown(request: web.Request) -> str:
    """A request's path for people: without a lease, wherever in it that stands."""
    return _LEASE.sub("/lease/...", request.path)
