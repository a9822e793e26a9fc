"""A wire in front of a registry that shows what one process asks of it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Self

__all__ = ["Tap"]

_REQUEST = re.compile(rb"(?:GET|PUT|POST|DELETE) (\S+) HTTP/1\.1\r\n")


class Tap:
    """Passes TCP connections on to an agent.

    Attributes:
        requests: when each request began, and its path with the query.
    """

    def __init__(self, url: str) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self.requests: list[tuple[float, str]] = []
        self.url = ""
        self._unanswered: dict[asyncio.StreamWriter, str] = {}
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def held(self) -> list[str]:
        """The paths of the requests that are waiting for their answer now."""
        return sorted(self._unanswered.values())

    def count(self, prefix: str, since: float = 0.0) -> int:
        return sum(at >= since and path.startswith(prefix) for at, path in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        for pump in (self._ask(reader, back), self._answer(there, writer, back)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                for match in _REQUEST.finditer(data):
                    path = match[1].decode("latin-1")
                    self.requests.append((time.monotonic(), path))
                    self._unanswered[back] = path
                back.write(data)
                await back.drain()
        except ConnectionError:
            pass
        finally:
            self._unanswered.pop(back, None)
            back.close()

    async def _answer(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await there.read(65536):
                self._unanswered.pop(back, None)
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()
