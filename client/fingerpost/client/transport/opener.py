"""Makes the sockets to one worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from math import inf
from typing import Any, Final, TypeAlias

from aiohappyeyeballs import start_connection

__all__ = ["Opener"]

# How much the kernel holds that has not left yet. Without it megabytes of an upload are 'sent' as
# soon as they are in the socket's buffer, and a slow link looks like a silent worker. Between
# 128 KB and 64 MB no difference in speed could be told from noise.
_UNSENT_BYTES: Final = 1 << 19
# Of a name's addresses, the next one is tried after this, before the first has failed (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25
_LOOKED_UP_S: Final = 10.0

_Info: TypeAlias = tuple[Any, Any, int, str, tuple[Any, ...]]


class Opener:
    """Connects to one worker. A host name is looked up, in a thread, once in ten seconds at most.

    Args:
        address: `host:port`, an IPv6 host in brackets.
        connect_s: how long the connection may take, once the addresses are known.
    """

    def __init__(self, address: str, connect_s: float) -> None:
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._connect_s = connect_s
        self._looking_up = asyncio.Lock()
        self._found: list[_Info] = []
        self._found_at = self._failed_at = -inf
        self._failure = ""
        with contextlib.suppress(socket.gaierror):  # an IP address needs no looking up
            self._found = socket.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
            self._found_at = inf

    async def open(self) -> socket.socket:
        """A connected socket that does not block. Raises `OSError` (`TimeoutError` is one)."""
        found = await self._look_up()
        try:
            async with asyncio.timeout(self._connect_s):
                return await start_connection(
                    found, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=_socket
                )
        except TimeoutError as error:
            raise TimeoutError(f"no connection within {self._connect_s:g} s (connect_s)") from error

    async def _look_up(self) -> list[_Info]:
        """The addresses; those that ask at the same time share what comes, an error too."""
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        async with self._looking_up:
            if asked_at - self._found_at > _LOOKED_UP_S:
                if self._failed_at >= asked_at:
                    raise OSError(self._failure)
                try:
                    self._found = await loop.getaddrinfo(
                        self._host, self._port, type=socket.SOCK_STREAM
                    )
                except OSError as error:
                    self._failed_at, self._failure = loop.time(), str(error)
                    raise
                self._found_at = loop.time()
            return self._found


def _socket(info: _Info) -> socket.socket:
    made = socket.socket(*info[:3])
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return made
