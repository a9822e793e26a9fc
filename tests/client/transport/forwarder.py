"""A TCP forwarder that can turn into a black hole, or let bytes through at a slow rate."""

from __future__ import annotations

import asyncio


class Forwarder:
    """Stands before one port.

    `hole` swallows everything and answers nothing, as a machine that lost its power behind a
    connection that nobody closed; `stopped` takes nothing any more; `bytes_per_s` slows what goes
    to the port.
    """

    def __init__(self, to_port: int, *, bytes_per_s: float | None = None) -> None:
        self.port = 0
        self.hole = asyncio.Event()
        self.stopped = False
        self.bytes_per_s = bytes_per_s
        self._to_port = to_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Forwarder:
        # A small buffer, so that what is slow here is slow for the sender too.
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 14)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to_port)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(reader, back, self.bytes_per_s))
                group.create_task(self._copy(there, writer, None))
        except* OSError:
            pass
        except* asyncio.CancelledError:
            pass  # the end of the test; streams would log it
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            back.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: float | None
    ) -> None:
        while data := await reader.read(1 << 13):
            while self.stopped:
                await asyncio.sleep(0.01)
            if rate is not None:
                await asyncio.sleep(len(data) / rate)
            if not self.hole.is_set():
                writer.write(data)
                await writer.drain()
        writer.close()
