"""The connections to each worker, closed when it goes."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Collection

    from fingerpost.client.config import ClientConfig

__all__ = ["Pool", "Pools"]

# How much the kernel holds that has not left yet. Without it megabytes of an upload are 'sent' as
# soon as they are in the socket's buffer, and a slow link looks like a silent worker. Between
# 128 KB and 64 MB no difference in speed could be told from noise.
_UNSENT_BYTES: Final = 1 << 19


class Pool:
    """The connections to one worker, and how many use them."""

    __slots__ = ("session", "users")

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.users = 0


class Pools:
    """A pool of HTTP/1.1 connections for each worker's address. Make it inside a running loop.

    A pool of its own, and not a share of one connector, because that is how the connections to one
    worker can be closed and counted.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._pools: dict[str, Pool] = {}
        self._kept: Collection[str] = ()
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._pools)

    async def aclose(self) -> None:
        """Close all connections, used ones too."""
        for address in list(self._pools):
            self._close(address)
        await asyncio.gather(*self._closing)

    def retain(self, addresses: Collection[str]) -> None:
        """Close the pools of all other addresses: the idle ones now, the others after use."""
        self._kept = addresses
        for address, pool in list(self._pools.items()):
            if not pool.users and address not in addresses:
                self._close(address)

    def take(self, address: str) -> Pool:
        """One worker's pool, which stays open until it is given to `release`."""
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = Pool(self._session())
        pool.users += 1
        return pool

    def release(self, address: str, pool: Pool) -> None:
        """End one use of a pool."""
        pool.users -= 1
        if not pool.users and address not in self._kept and self._pools.get(address) is pool:
            self._close(address)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._config.connections_per_worker, socket_factory=_socket
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # The caller has the deadline, and the transport the phases after connecting.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._config.connect_s),
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
        )

    def _close(self, address: str) -> None:
        pool = self._pools.pop(address)
        task = asyncio.create_task(pool.session.close(), name=f"closing {address}")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
    return made
