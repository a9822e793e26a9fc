"""The connections to each worker, closed when it goes."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.transport.connection import Connection
from fingerpost.client.transport.opener import Opener

if TYPE_CHECKING:
    from collections.abc import Collection

    from fingerpost.client.config import ClientConfig

__all__ = ["Pool", "Pools"]

# Far less than the 75 s after which a worker closes one, so that both seldom cross.
_KEPT_S: Final = 15.0
_TIDY_S: Final = 5.0


class Pool:
    """The connections to one worker.

    The one used last is used first, so that those beyond the need grow old and are closed. Who
    finds none free waits for one, in the order of coming.

    Args:
        address: `host:port`.
        most: connections open at a time, not counting one for a probe.
        connect_s: how long opening one may take.

    Attributes:
        users: how many requests use the pool or wait in it; `Pools` counts them.
    """

    __slots__ = (
        "_address",
        "_busy",
        "_closed",
        "_idle",
        "_most",
        "_open",
        "_opener",
        "_waiting",
        "users",
    )

    def __init__(self, address: str, most: int, connect_s: float) -> None:
        self._address = address
        self._most = most
        self._opener = Opener(address, connect_s)
        self._open = 0  # places taken: open, being opened, or promised to one that waits
        self._idle: deque[Connection] = deque()  # the longest idle first
        self._busy: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False
        self.users = 0

    def __len__(self) -> int:
        return self._open

    async def take(self, *, probe: bool = False) -> Connection:
        """A connection for one exchange, to be given back.

        Args:
            probe: never wait behind images, whose worker is in question.

        Raises:
            OSError: none can be made.
        """
        connection: Connection | None = None
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._busy.add(connection)
                return connection
            self._open -= 1
        if self._open < self._most or probe:
            self._open += 1
        else:
            connection = await self._wait()
        if connection is None or connection.closed:
            connection = await self._connect()
        self._busy.add(connection)
        return connection

    def give(self, connection: Connection) -> None:
        """Take it back, for the next."""
        if self._closed or self._open > self._most:
            connection.close()
        if connection.closed:
            self._busy.discard(connection)
            self._leave()
        elif not self._promise(connection):
            self._busy.discard(connection)
            self._idle.append(connection)

    def give_up(self, reason: str) -> None:
        """End the exchanges that wait for the answer to their image."""
        for connection in self._busy:
            if connection.sent:
                connection.give_up(reason)

    def tidy(self, before: float = inf) -> None:
        """Close what has been idle since then, or longer."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.popleft().close()
            self._open -= 1

    def close(self) -> None:
        """Close all connections; what uses them or waits for one fails."""
        self._closed = True
        self.tidy()
        for connection in list(self._busy):
            connection.close()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_closed())

    async def _wait(self) -> Connection | None:
        """Wait for a connection, or for the place of one."""
        waiting: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                self._waiting.remove(waiting)
            elif waiting.exception() is None:  # promised and cancelled at once: it is the next's
                promised = waiting.result()
                if promised is None:
                    self._leave()
                else:
                    self.give(promised)
            raise

    async def _connect(self) -> Connection:
        """Fill a place that was taken."""
        try:
            opened = await self._opener.open()
        except BaseException:
            self._leave()
            raise
        if self._closed:
            opened.close()
            raise _closed()
        return Connection(opened, self._address)

    def _leave(self) -> None:
        """Give up a place, to whoever waits for one."""
        if self._open > self._most or not self._promise(None):
            self._open -= 1

    def _promise(self, connection: Connection | None) -> bool:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False


class Pools:
    """A pool for each worker's address. Make it inside a running loop."""

    def __init__(self, config: ClientConfig) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._pools: dict[str, Pool] = {}
        self._kept: Collection[str] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._pools)

    def close(self) -> None:
        """Close all connections, used ones too."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def retain(self, addresses: Collection[str]) -> None:
        """Close the pools of all other addresses: the idle ones now, the others after use."""
        self._kept = addresses
        for address, pool in list(self._pools.items()):
            if not pool.users and address not in addresses:
                del self._pools[address]
                pool.close()

    def take(self, address: str) -> Pool:
        """One worker's pool, which stays open until it is given to `release`."""
        pool = self._pools.get(address)
        if pool is None:
            if self._closed:
                raise RuntimeError("the client was closed")
            config = self._config
            pool = Pool(address, config.connections_per_worker, config.connect_s)
            self._pools[address] = pool
            if self._timer is None:
                self._tidy()
        pool.users += 1
        return pool

    def release(self, address: str, pool: Pool) -> None:
        """End one use of a pool."""
        pool.users -= 1
        if not pool.users and address not in self._kept and self._pools.get(address) is pool:
            del self._pools[address]
            pool.close()

    def give_up(self, address: str, reason: str) -> None:
        """End the exchanges that wait there for the answer to their image."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.give_up(reason)

    def _tidy(self) -> None:
        before = self._loop.time() - _KEPT_S
        for pool in self._pools.values():
            pool.tidy(before)
        self._timer = self._loop.call_later(_TIDY_S, self._tidy) if self._pools else None


def _closed() -> OSError:
    return ConnectionAbortedError("the client was closed")
