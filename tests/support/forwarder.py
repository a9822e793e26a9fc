"""A wire in front of a server, which can be watched, slowed, stopped and made to swallow all."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from tests.support.sockets import close_server

__all__ = ["CountingForwarder", "Forwarder"]

_STEP = 1 << 13


class Forwarder:
    """Passes TCP connections on to a port of this machine.

    Args:
        to_port: the server's.
        bytes_per_s: how fast clients may send; None does not limit them.
        host: the loopback address to listen at.
        port: and the port there; 0 takes a free one.

    Attributes:
        port: where it listens.
        hole: while set, everything is swallowed and nothing answered, as by a machine that lost
            its power behind connections that nobody closed.
        stopped: takes nothing any more.
    """

    def __init__(
        self,
        to_port: int,
        *,
        bytes_per_s: float | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.port = port
        self.hole = asyncio.Event()
        self.stopped = False
        self.bytes_per_s = bytes_per_s
        self._host = host
        self._to_port = to_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        # A small buffer, so that what is slow here is slow for the sender too.
        self._server = await asyncio.start_server(
            self._serve, self._host, self.port, limit=2 * _STEP
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        await close_server(self._server)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    def asked(self, connection: object, data: bytes) -> None:
        """A client sent this; a subclass may look at it."""

    def answered(self, connection: object, data: bytes) -> None:
        """The server sent this."""

    def ended(self, connection: object) -> None:
        """One of the two has closed the connection."""

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        # The end of the test cancels it; streams would log that.
        with contextlib.suppress(asyncio.CancelledError):
            await self._connect(reader, writer)
        self._tasks.discard(task)
        writer.transport.abort()
        self.ended(writer)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask(reader, back, writer))
                group.create_task(self._answer(there, writer))
        except* OSError:
            pass
        finally:
            back.transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, connection: object
    ) -> None:
        while data := await reader.read(_STEP):
            self.asked(connection, data)
            if self.bytes_per_s is not None:
                await asyncio.sleep(len(data) / self.bytes_per_s)
            await self._pass(data, back)
        back.close()

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(_STEP):
            self.answered(writer, data)
            await self._pass(data, writer)
        writer.close()

    async def _pass(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while self.stopped:
            await asyncio.sleep(0.01)
        if not self.hole.is_set():
            writer.write(data)
            await writer.drain()


class CountingForwarder(Forwarder):
    """Keeps every byte that clients sent."""

    def __init__(self, to_port: int) -> None:
        super().__init__(to_port)
        self.received = bytearray()

    def asked(self, connection: object, data: bytes) -> None:
        """See `Forwarder`."""
        self.received += data
