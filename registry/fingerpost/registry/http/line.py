"""A client's connection but for what it sends: limits, times, and the answers one after another.

A connection has one task, which sleeps between requests: one for each request, which asyncio also
enters in its set of all tasks, takes 2 us more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp.base_protocol import BaseProtocol

from fingerpost.registry.http.guard import REFUSAL
from fingerpost.registry.http.unix_listener import client_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.registry.http.context import ServerContext

__all__ = ["ClientLine"]

logger = logging.getLogger(__name__)

# Requests that wait for those before them, when no more is read; and when reading goes on.
_MANY: Final = 32
_FEW: Final = 8


class ClientLine(BaseProtocol):
    """The connection of one client; its subclass reads what comes.

    It is closed if the headers of a request take longer than `headers_timeout_s`, from their first
    byte or from the start of a new connection on; and if it is idle for `idle_timeout_s`.

    Args:
        context: what all connections of a server share.

    Attributes:
        remote: the host of the client, or its user; empty where that is not known.
    """

    def __init__(self, context: ServerContext) -> None:
        super().__init__(asyncio.get_running_loop())
        self._context = context
        self._limits = context.guard.config
        self._counted = False  # not while it is refused or over
        self.remote = ""
        self._in_head = False  # of a request whose headers are not complete
        # The requests that were read.
        self._task: asyncio.Task[None] | None = None
        self._next: deque[Callable[[], Awaitable[bool]]] = deque()
        self._asleep: asyncio.Future[None] | None = None  # of the task, between requests
        self._busy = False
        self._many_wait = False
        self._ahead_bytes = 0  # of bodies that wait so
        self._closing = False  # after the answer that is being made
        # By the loop's clock.
        self._began_at: float | None = None  # the head that is being read
        self._idle_since = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    def _end_reading(self, error: BaseException | None = None) -> None:
        """Read no more; the body that is being read does not come whole."""
        raise NotImplementedError

    def _update_reading(self) -> None:
        """Pause the client, or let it go on."""
        raise NotImplementedError

    # What aiohttp's requests ask of their connection.

    @property
    def ssl_context(self) -> Any:
        """The TLS of the connection; None where there is none."""
        return self._fact("sslcontext")

    @property
    def peername(self) -> Any:
        """The address of the client; of one at a Unix socket, its user."""
        return self._fact("peername") or (self.remote, 0)

    @property
    def sockname(self) -> Any:
        """The address that the client connected to."""
        return self._fact("sockname")

    def _fact(self, name: str) -> Any:
        return None if self.transport is None else self.transport.get_extra_info(name)

    # The connection itself.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.remote = client_name(transport)
        if not self._context.guard.enter(self.remote):
            writer = cast("asyncio.Transport", transport)
            writer.write(REFUSAL)
            writer.close()
            return
        self._counted = True
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._begin()
        self._task = self._loop.create_task(self._work())
        self._idle_since = self._loop.time()
        self._idle_timer = self._loop.call_later(self._limits.idle_timeout_s, self._check_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._counted:
            return
        self._counted = False
        self._closing = True
        self._context.guard.leave(self.remote)
        for timer in (self._head_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self._end_reading(exc or ConnectionResetError("the connection was lost"))
        self._next.clear()
        super().connection_lost(exc)
        if self._task is not None and (self._context.cancels or not self._busy):
            self._task.cancel()

    def eof_received(self) -> None:
        """Returns nothing, by which asyncio closes."""

    def close(self) -> None:
        """Close, after the answer that is being made."""
        self._closing = True
        if not self._busy and self.transport is not None:
            self.transport.close()

    async def shutdown(self, timeout_s: float | None) -> None:
        """Close, after the answer that is being made or when that takes too long."""
        self.close()
        if (task := self._task) is not None:
            if self._busy:
                await asyncio.wait([task], timeout=timeout_s)
            task.cancel()
            await asyncio.wait([task], timeout=timeout_s)
        if self.transport is not None:
            self.transport.close()

    def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ConnectionError: the client is gone.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the connection was lost")
        transport.write(data)

    async def drained(self) -> None:
        """Wait while the client does not read what was sent.

        Raises:
            ConnectionError: the client is gone.
        """
        if self.writing_paused:
            await self._drain_helper()

    # Answers, one after the other.

    def _add(self, answer: Callable[[], Awaitable[bool]]) -> None:
        self._busy = True
        self._next.append(answer)
        asleep = self._asleep
        if asleep is not None and not asleep.done():
            asleep.set_result(None)
        elif len(self._next) >= _MANY:
            self._wait_for_answers()

    def _count_ahead(self, size: int) -> None:
        """Count bytes of bodies that arrive while requests wait for those before them."""
        self._ahead_bytes += size
        if self._ahead_bytes > self._context.read_bytes:
            self._wait_for_answers()

    def _wait_for_answers(self) -> None:
        if not self._many_wait:
            self._many_wait = True
            self._update_reading()

    async def _work(self) -> None:
        waiting = self._next
        try:
            while not self._closing:
                if not waiting:
                    self._asleep = self._loop.create_future()
                    await self._asleep
                answer = waiting.popleft()
                if not waiting:
                    self._ahead_bytes = 0
                if self._many_wait and len(waiting) <= (0 if self._ahead_bytes else _FEW):
                    self._many_wait = False
                    self._update_reading()
                if not await answer():
                    break
                del answer  # which holds its request
                if waiting:
                    await asyncio.sleep(0)  # other connections have their turn in a pipeline
                else:
                    self._busy = False
                    self.touch()
        except ConnectionError:  # the client is gone
            pass
        except Exception:
            logger.exception("an answer to %s failed", self.remote)
        finally:
            self._closing = True
            self._busy = False
            self._task = None
            self._end_reading()
            if self.transport is not None:
                self.transport.close()

    # Times.

    def touch(self) -> None:
        """Count the connection as used: a request was answered."""
        self._idle_since = self._loop.time()
        if not self._in_head:
            self._began_at = None

    def _check_idle(self) -> None:
        timeout_s = self._limits.idle_timeout_s
        left_s = timeout_s
        if not self._busy:
            left_s += self._idle_since - self._loop.time()
        if left_s <= 0:
            self.close()
        else:
            self._idle_timer = self._loop.call_later(left_s, self._check_idle)

    def _begin(self) -> None:
        self._began_at = self._loop.time()
        if self._head_timer is None:  # one timer for many requests
            self._head_timer = self._loop.call_later(
                self._limits.headers_timeout_s, self._check_head
            )

    def _check_head(self) -> None:
        self._head_timer = None
        if self._began_at is None:
            return
        left_s = self._began_at + self._limits.headers_timeout_s - self._loop.time()
        if left_s <= 0:
            self._end_reading()
            self.close()
        else:
            self._head_timer = self._loop.call_later(left_s, self._check_head)
