"""Answers to `GET /load` that must be refused, as bytes on the wire, and a server for them."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec

from fingerpost.registry import Instance, LoadReport, ModelInfo, WorkerState
from fingerpost.registry.load import MAX_LOAD_BYTES
from tests.support.sockets import close_server

__all__ = ["REFUSED", "REPORT", "answer", "serving"]

REPORT: Final = LoadReport(rif=1, slots=4, state=WorkerState.READY, boot_id=4711, seq=7)
_JSON: Final = msgspec.json.encode(REPORT)


def answer(body: bytes = _JSON, status: str = "200 OK", *fields: str) -> bytes:
    """An answer with its length, and further header fields."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", "")
    return "\r\n".join(lines).encode() + body


REFUSED: Final = {
    "redirect": answer(b"", "302 Found", "Location: /elsewhere"),
    "permanent redirect with a report": answer(_JSON, "308 Permanent Redirect", "Location: /x"),
    "gzip": answer(gzip.compress(_JSON), "200 OK", "Content-Encoding: gzip"),
    "gzip in name only": answer(_JSON, "200 OK", "Content-Encoding: gzip"),
    "too large": answer(_JSON + b" " * MAX_LOAD_BYTES),
    "too large, in chunks without an end": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"4000\r\n" + b" " * 0x4000 + b"\r\n") * 20
    ),
    "nested JSON": answer(_JSON[:-1] + b',"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
    "invalid UTF-8": answer(b'{"rif":"\xff"}'),
    "invalid UTF-8 in an unknown field": answer(_JSON[:-1] + b',"x":"\xff"}'),
    "400-digit number": answer(_JSON.replace(b'"rif":1', b'"rif":' + b"9" * 400)),
    "5000-digit number": answer(_JSON.replace(b'"seq":7', b'"seq":' + b"9" * 5000)),
    "400-digit figure": answer(_JSON.replace(b'"queued_cost":0.0', b'"queued_cost":' + b"9" * 400)),
    "negative number": answer(_JSON.replace(b'"slots":4', b'"slots":-4')),
    "unknown state": answer(_JSON.replace(b'"state":1', b'"state":9')),
    "not JSON": answer(b"<html>"),
    "other JSON": answer(b'{"rif":1}'),
    "empty": answer(b""),
    "not found": answer(b"", "404 Not Found"),
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}


@contextlib.asynccontextmanager
async def serving(
    reply: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[Instance, list[bytes]]]:
    """A server that replies so to every request; the instance at its address, and the requests."""
    requests: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                if isinstance(reply, bytes):
                    writer.write(reply)
                else:
                    await reply(writer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield (
            Instance(
                id=f"flowers-{port}",
                service="flowers",
                host="127.0.0.1",
                ports={"http": port},
                models=(ModelInfo(name="flowers", versions=("1",)),),
                boot_id=REPORT.boot_id,
            ),
            requests,
        )
    finally:
        await close_server(server)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next round
