"""A pool of connections for each worker, closed when the worker leaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.transport.connection import Connection
from fingerpost.client.transport.opener import LocalConnect, Opener, TlsContext, plain

if TYPE_CHECKING:
    from collections.abc import Collection

    from fingerpost.client.config import ClientConfig

__all__ = ["Pool", "Pools"]

# Idle connections are closed after this. Far less than the 75 s after which a worker closes them,
# so that a request seldom meets a connection that is being closed.
_MAX_IDLE_S: Final = 15.0
_EVICT_EVERY_S: Final = 5.0


class Pool:
    """The connections to one worker.

    The connection used last is used first, so that superfluous ones become idle and are closed.
    Requests that find no free connection wait for one, first in, first out.

    Args:
        target: see `Instance.target`.
        max_open: how many connections may be open at a time, not counting one for a probe.
        connect_timeout_s: how many seconds opening a connection may take.
        context, local: see `Opener`.

    Attributes:
        users: how many requests use the pool or wait in it; counted by `Pools`.
    """

    __slots__ = (
        "_busy",
        "_closed",
        "_idle",
        "_max_open",
        "_open",
        "_opener",
        "_target",
        "_waiting",
        "users",
    )

    def __init__(
        self,
        target: str,
        max_open: int,
        connect_timeout_s: float,
        context: TlsContext = plain,
        local: LocalConnect = plain,
    ) -> None:
        self._target = target
        self._max_open = max_open
        self._opener = Opener(target, connect_timeout_s, context, local)
        self._open = 0  # slots in use: open, being opened, or assigned to a waiting request
        self._idle: deque[Connection] = deque()  # the longest idle first
        self._busy: set[Connection] = set()
        self._waiting: deque[asyncio.Future[Connection | None]] = deque()
        self._closed = False
        self.users = 0

    def __len__(self) -> int:
        return self._open

    async def acquire(self, *, probe: bool = False) -> Connection:
        """A connection for one exchange; the caller must `release` it.

        Args:
            probe: do not wait behind images: the probe is to find out whether their worker lives.

        Raises:
            OSError: no connection can be opened.
            TlsFailed: see `Opener.open`.
        """
        connection: Connection | None = None
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._busy.add(connection)
                return connection
            self._open -= 1
        if self._open < self._max_open or probe:
            self._open += 1
        else:
            connection = await self._wait()
        if connection is None or connection.closed:
            connection = await self._connect()
        self._busy.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Return a connection to the pool, or to the request that has waited longest."""
        if self._closed or self._open > self._max_open:
            connection.close()
        if connection.closed:
            self._busy.discard(connection)
            self._free_slot()
        elif not self._assign(connection):
            self._busy.discard(connection)
            self._idle.append(connection)

    def abort(self, reason: str) -> None:
        """Abort the exchanges that have sent their image and wait for the answer."""
        for connection in self._busy:
            if connection.sent:
                connection.abort(reason)

    def evict_idle(self, before: float = inf) -> None:
        """Close the connections that have been idle since that time, or longer."""
        while self._idle and self._idle[0].idle_since <= before:
            self._idle.popleft().close()
            self._open -= 1

    def close(self) -> None:
        """Close all connections; requests that use one or wait for one fail."""
        self._closed = True
        self.evict_idle()
        for connection in list(self._busy):
            connection.close()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(_closed())

    async def _wait(self) -> Connection | None:
        """Wait for a connection, or for the slot of one (None)."""
        waiting: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.cancelled():
                with contextlib.suppress(ValueError):  # passed over already, as it was cancelled
                    self._waiting.remove(waiting)
            elif waiting.exception() is None:  # assigned and cancelled at once: pass it on
                assigned = waiting.result()
                if assigned is None:
                    self._free_slot()
                else:
                    self.release(assigned)
            raise

    async def _connect(self) -> Connection:
        """Open a connection in a slot that the caller has taken."""
        try:
            opened = await self._opener.open()
        except BaseException:
            self._free_slot()
            raise
        if self._closed:
            opened.close()
            raise _closed()
        return Connection(opened, self._target)

    def _free_slot(self) -> None:
        """Pass a slot on to a waiting request, or free it."""
        if self._open > self._max_open or not self._assign(None):
            self._open -= 1

    def _assign(self, connection: Connection | None) -> bool:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False


class Pools:
    """A pool for each worker's `Instance.target`. Make it inside a running loop.

    Args:
        config: of the client.
        context, local: see `Opener`.
    """

    def __init__(
        self, config: ClientConfig, context: TlsContext = plain, local: LocalConnect = plain
    ) -> None:
        self._context = context
        self._local = local
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._pools: dict[str, Pool] = {}
        self._retained: Collection[str] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._pools)

    def close(self) -> None:
        """Close all connections, including those in use."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()

    def retain(self, addresses: Collection[str]) -> None:
        """Close the pools of all other addresses: at once if idle, otherwise after use."""
        self._retained = addresses
        for address, pool in list(self._pools.items()):
            if not pool.users and address not in addresses:
                del self._pools[address]
                pool.close()

    def acquire(self, address: str) -> Pool:
        """The pool of one worker; it stays open until the caller passes it to `release`."""
        pool = self._pools.get(address)
        if pool is None:
            if self._closed:
                raise RuntimeError("the client was closed")
            config = self._config
            pool = Pool(
                address,
                config.connections_per_worker,
                config.connect_timeout_s,
                self._context,
                self._local,
            )
            self._pools[address] = pool
            if self._timer is None:
                self._evict_idle()
        pool.users += 1
        return pool

    def release(self, address: str, pool: Pool) -> None:
        """End one use of a pool; the last one closes a pool that is not retained."""
        pool.users -= 1
        if not pool.users and address not in self._retained and self._pools.get(address) is pool:
            del self._pools[address]
            pool.close()

    def abort(self, address: str, reason: str) -> None:
        """Abort the exchanges that have sent their image there and wait for the answer."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.abort(reason)

    def _evict_idle(self) -> None:
        before = self._loop.time() - _MAX_IDLE_S
        for pool in self._pools.values():
            pool.evict_idle(before)
        again = self._loop.call_later(_EVICT_EVERY_S, self._evict_idle) if self._pools else None
        self._timer = again


def _closed() -> OSError:
    return ConnectionAbortedError("the client was closed")
