"""Opens the sockets to one worker."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Callable
from math import inf
from typing import Any, Final, TypeAlias

from aiohappyeyeballs import start_connection

from fingerpost.client.transport.tls_socket import TlsSocket, open_tls
from fingerpost.errors import TlsFailed
from fingerpost.registry.address_policy import never_allowed
from fingerpost.registry.instance import split_target
from fingerpost.security.tls.problems import tls_problem

__all__ = ["LocalConnect", "Opener", "TlsContext", "plain"]

# How many unsent bytes the kernel may hold. Without this limit megabytes of an upload count as sent
# as soon as they are in the socket's buffer, and a slow link looks like a worker that does not
# respond. Between 128 KB and 64 MB we measured no difference in speed.
_UNSENT_BYTES: Final = 1 << 19
# After this time the next address of a host name is tried too (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25
_RESOLVE_EVERY_S: Final = 10.0

_Info: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]
TlsContext: TypeAlias = Callable[[str], ssl.SSLContext | None]
LocalConnect: TypeAlias = Callable[[str], socket.socket | None]


def plain(_: str) -> None:
    """No TLS, or no Unix socket, for any target."""


class Opener:
    """Connects to one worker. A host name is resolved in a thread, at most once in ten seconds.

    Args:
        target: see `Instance.target`; an IPv6 host in brackets.
        connect_timeout_s: how many seconds connecting may take, once the addresses are known.
        context: gives the TLS context for a connection to the target, or None for a plain one.
        local: gives a connected Unix socket of the target, or None where there is none.
    """

    def __init__(
        self,
        target: str,
        connect_timeout_s: float,
        context: TlsContext = plain,
        local: LocalConnect = plain,
    ) -> None:
        self._target = target
        self._context = context
        self._local = local
        self._session: ssl.SSLSession | None = None
        self._session_context: ssl.SSLContext | None = None
        host, _, port = split_target(target)[0].rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._connect_timeout_s = connect_timeout_s
        self._resolving = asyncio.Lock()
        self._found: list[_Info] = []
        self._found_at = self._failed_at = -inf
        self._failure = ""
        with contextlib.suppress(socket.gaierror):  # an IP address need not be resolved
            self._found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            self._found_at = inf

    async def open(self) -> socket.socket | TlsSocket:
        """A connected, non-blocking socket.

        Raises:
            OSError: the name cannot be resolved, or the connection fails or times out.
            TlsFailed: one side does not accept the other one's certificate, or the worker speaks
                no TLS and must.
        """
        context = self._context(self._target)
        opened = self._local(self._target)
        found = await self._resolve() if opened is None else []
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                if opened is None:
                    opened = await start_connection(
                        found, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=_socket
                    )
                return opened if context is None else await self._secure(opened, context)
        except TimeoutError as error:
            raise TimeoutError(
                f"no connection within {self._connect_timeout_s:g} s (connect_timeout_s)"
            ) from error

    async def _secure(self, opened: socket.socket, context: ssl.SSLContext) -> TlsSocket:
        if self._session_context is not context:  # it was made again, because its files changed
            self._session_context, self._session = context, None

        def keep(session: ssl.SSLSession | None) -> None:
            if self._session_context is context:
                self._session = session

        try:
            return await open_tls(opened, context, self._host, self._session, keep)
        except ssl.SSLError as error:
            self._session = None
            raise TlsFailed(f"{self._target}: {tls_problem(error)}") from error

    async def _resolve(self) -> list[_Info]:
        """The addresses. Concurrent callers share one lookup, and its error."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._resolving:
            if asked_at - self._found_at > _RESOLVE_EVERY_S:
                if self._failed_at >= asked_at:
                    raise OSError(self._failure)
                try:
                    self._found = _allowed(
                        await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                    )
                except OSError as error:
                    self._failed_at, self._failure = loop.time(), str(error)
                    raise
                self._found_at = loop.time()
            return self._found


def _allowed(found: list[_Info]) -> list[_Info]:
    """What a host name resolved to, without the addresses that no worker can have.

    Whoever gave the name cannot know what it resolves to: see `address_policy`.
    """
    allowed = [each for each in found if never_allowed(ipaddress.ip_address(each[4][0])) is None]
    if found and not allowed:
        raise OSError(f"its host name is {found[0][4][0]}: no worker can have that address")
    return allowed


def _socket(info: _Info) -> socket.socket:
    made = socket.socket(*info[:3])
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return made
