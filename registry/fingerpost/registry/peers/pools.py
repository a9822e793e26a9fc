"""Two pools of connections to one registry: for calls, and for watches."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from typing import TYPE_CHECKING, Final, Literal

import aiohttp

from fingerpost.registry.peers.session import LimitedConnector

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ConnectionPools", "Pool"]

# Watches hold their connections for as long as they wait, so that heartbeats need a pool of their
# own: in a shared pool of two, a third call was seen to wait behind two watches.
Pool = Literal["calls", "watches"]

_CALL_CONNECTIONS: Final = 8
_CLOSING_ROUNDS: Final = 100


class ConnectionPools:
    """Sessions of aiohttp, made on first use in the running loop.

    Redirects, cookies, proxies and environment variables are not used, and there is no deadline:
    those are the callers' own.

    Args:
        max_body_bytes: the largest answer; a connection on which far more comes is cut.
        tls: whether the connections speak TLS.
        headers: sent with every request.
    """

    def __init__(
        self, max_body_bytes: int, *, tls: bool, headers: Mapping[str, str] | None = None
    ) -> None:
        self._max_body_bytes = max_body_bytes
        self._tls = tls
        self._headers = headers
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def session(self, pool: Pool) -> aiohttp.ClientSession:
        """The session of a pool."""
        session = self._sessions.get(pool)
        if session is None:
            connector = LimitedConnector(
                self._max_body_bytes,
                # The number of watches is bounded by the registry, that of calls by the pool.
                limit=_CALL_CONNECTIONS if pool == "calls" else 0,
                socket_factory=self._new_socket,
            )
            session = self._sessions[pool] = aiohttp.ClientSession(
                connector=connector,
                # Deadlines are the callers' own; aiohttp's default of 300 s would cut in.
                timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
            )
        return session

    async def aclose(self) -> None:
        """Close all connections. A later `session` opens new ones."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()
        if not self._tls:
            return
        # A call cancelled while it waits leaves its connection in TLS's closing handshake, for up
        # to 30 s where the peer is frozen. That handshake is not needed, and is cut short.
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for _ in range(_CLOSING_ROUNDS):
            if all(each.fileno() == -1 for each in self._sockets):
                break
            await asyncio.sleep(0)  # each step of the closing takes a round of the loop

    def _new_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        self._sockets.add(made)
        return made
