"""TLS on the connections of Fingerpost's servers: asyncio's, with limits, and certificates renewed.

`loop.create_server(ssl=...)` keeps one context for ever, counts no connection before its handshake
is over, and says nothing of a handshake that fails. So the server listens without TLS, and each
connection begins with the protocol here, which is the one that asyncio uses itself, with the
context that is current now. The HTTP connection behind it, with its fast path, is the same as
without TLS.

Rejected: certificates loaded into a context that is in use, because a pair that does not fit breaks
it, and because old sessions would go on after a change of authorities.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from asyncio.sslproto import SSLProtocol, SSLProtocolState
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fingerpost.basics.log_limit import LogLimit
from fingerpost.errors import Misdirected
from fingerpost.registry.http.refusals import REFUSED_CONNECTIONS
from fingerpost.registry.http.unix_listener import client_name

if TYPE_CHECKING:
    from fingerpost.registry.http.connection_config import ConnectionConfig
    from fingerpost.security.tls import ServerTls

__all__ = ["TlsConnections"]

logger = logging.getLogger(__name__)

# How long the other end may take to say goodbye, in seconds.
_SHUTDOWN_S: Final = 2.0
_LINGER_S: Final = 1.0
_LOG_EVERY_S: Final = 60.0
_REMEDIES: Final = {
    "HTTP_REQUEST": "it sent plain HTTP: this port speaks TLS, use https://",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it showed no certificate, which --tls-client-ca asks for",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not trust this server's certificate: give it the authority "
    "(--tls-ca)",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it says that this server's certificate has expired",
}


class Guard(Protocol):
    """Counts connections, as `ConnectionGuard` does."""

    @property
    def config(self) -> ConnectionConfig:
        """The limits."""
        ...

    def enter(self, client: str) -> bool:
        """Count a connection of a client's address; False if it must be refused."""
        ...

    def leave(self, client: str) -> None:
        """Count one connection less."""
        ...


class TlsConnections:
    """Makes the protocol of each new connection.

    Args:
        make: makes the HTTP connection behind TLS.
        guard: counts connections, also while they shake hands.
        tls: has the context.
    """

    def __init__(
        self, make: Callable[[], asyncio.BaseProtocol], guard: Guard, tls: ServerTls
    ) -> None:
        self._make = make
        self._guard = guard
        self._tls = tls
        self._log = LogLimit(_LOG_EVERY_S)

    def __call__(self) -> asyncio.BufferedProtocol:
        """The protocol of a new connection."""
        return _TlsConnection(self._make(), self._tls.current(), self._guard, self._failed)

    def _failed(self, client: str, error: ssl.SSLError) -> None:
        """Count a handshake that failed, and say so once a minute."""
        REFUSED_CONNECTIONS["tls_handshake"] += 1
        if count := self._log.count(time.monotonic()):
            reason = str(getattr(error, "reason", "") or error)
            logger.warning(
                "%d TLS handshakes failed, the last from %s: %s",
                count,
                client or "?",
                _REMEDIES.get(reason, reason),
            )


class _TlsConnection(SSLProtocol):
    """The TLS of one connection."""

    def __init__(
        self,
        connection: asyncio.BaseProtocol,
        context: ssl.SSLContext,
        guard: Guard,
        failed: Callable[[str, ssl.SSLError], None],
    ) -> None:
        options: dict[str, Any] = {
            "waiter": None,
            "server_side": True,
            "ssl_handshake_timeout": guard.config.headers_timeout_s,
            "ssl_shutdown_timeout": _SHUTDOWN_S,
        }
        super().__init__(asyncio.get_running_loop(), connection, context, **options)
        self._guard = guard
        self._failed = failed
        self._client: str | None = None  # while it shakes hands, and is counted
        self._refused = False

    def connection_made(self, transport: Any) -> None:
        client = client_name(transport)
        if not self._guard.enter(client):
            transport.abort()
            return
        self._client = client
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def _on_handshake_complete(self, handshake_exc: Any) -> None:
        if isinstance(handshake_exc, ssl.SSLError) and self._transport is not None:
            self._failed(self._client or "", handshake_exc)
            self._refuse(_PLAIN if handshake_exc.reason == "HTTP_REQUEST" else b"")
            return
        self._leave()  # from now on the connection behind counts itself
        super()._on_handshake_complete(handshake_exc)

    def _refuse(self, answer: bytes) -> None:
        """Say why, and close a second later: at once, what the client has sent would reset it."""
        protocol: Any = self  # of which typeshed does not have all
        transport = protocol._transport
        if protocol._handshake_timeout_handle is not None:
            protocol._handshake_timeout_handle.cancel()
        protocol._set_state(SSLProtocolState.UNWRAPPED)
        self._refused = True
        transport.write(answer or protocol._outgoing.read())  # OpenSSL's alert
        transport.write_eof()
        self._loop.call_later(_LINGER_S, transport.abort)

    def buffer_updated(self, nbytes: int) -> None:
        """What a refused client sends is dropped."""
        if not self._refused:
            super().buffer_updated(nbytes)

    def _leave(self) -> str:
        client, self._client = self._client, None
        if client is not None:
            self._guard.leave(client)
        return client or ""


def _plain() -> bytes:
    """What a client gets that sends plain HTTP: another worker may take it."""
    error = Misdirected("this port speaks TLS: use https://")
    body = error.to_json()
    return (
        b"HTTP/1.1 %d Misdirected Request\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (error.status, len(body), body)
    )


_PLAIN: Final = _plain()
