"""The other end of a connection, byte by byte: what it says is up to a test's script."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Final

from tests.support.sockets import close_server

Script = Callable[["Conversation"], Awaitable[None]]

ANSWER: Final = (
    b'{"model":"digits","version":"1","results":[{"name":"data","predictions":[["a",0.75]]}]}'
)


def answer(body: bytes = ANSWER, status: str = "200 OK", **fields: str) -> bytes:
    """An answer with a length."""
    lines = "".join(f"{key.replace('_', '-')}: {value}\r\n" for key, value in fields.items())
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (
        status.encode(), lines.encode(), len(body), body,
    )  # fmt: skip


class Conversation:
    """One connection; `number` counts them from 1."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.number = number
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        """The head of the next request; empty at the end."""
        try:
            return await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""

    async def request(self) -> bytes | None:
        """The next request's body; None at the end."""
        head = (await self.head()).lower()
        if not head:
            return None
        if b"transfer-encoding: chunked" not in head:
            _, found, length = head.partition(b"content-length: ")
            return await self.reader.readexactly(int(length.split(b"\r\n")[0])) if found else b""
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return body

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def closed(self) -> None:
        """Wait until the client has closed it."""
        try:
            while await self.reader.read(1 << 16):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class Peer:
    """Serves every connection by its script; closes it afterwards.

    `connections` counts them, `bodies` are what `echo` got; `open` are those not closed yet.
    """

    def __init__(self, script: Script | None = None, host: str = "127.0.0.1") -> None:
        self._script = script or self.echo
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self.bodies: list[bytes] = []
        self.address = ""
        self.port = 0

    async def __aenter__(self) -> Peer:
        self._server = await asyncio.start_server(self._serve, self._host, 0, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"{host}:{self.port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_server(self._server)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def echo(self, talk: Conversation) -> None:
        """Answers every request."""
        while (body := await talk.request()) is not None:
            self.bodies.append(body)
            talk.say(answer())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._script(Conversation(self.connections, reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass  # streams would log it
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
