"""What a hostile peer may answer, whatever it was asked, and a server that does so.

The answers that end are in `FIXED`, those that do not in `ENDLESS`; each is bytes on the wire.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator
from typing import Final

from tests.support.sockets import close_server

__all__ = ["ENDLESS", "FIXED", "HostileServer", "reply", "serving_hostile"]

_DEEP: Final = b"[" * 100_000
_DIGITS: Final = b"9" * 400


def reply(body: bytes = b"", status: str = "200 OK", *fields: str) -> bytes:
    """An answer with its length, and further header fields."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields, "", "")
    return "\r\n".join(lines).encode("latin-1") + body


def _image(predictions: bytes = b'[["a",0.5]]', rest: bytes = b"") -> bytes:
    return reply(
        b'{"model":"digits","version":"1","results":[{"name":"data","predictions":%b%b}]}'
        % (predictions, rest)
    )


FIXED: Final = {
    "redirect": reply(b"", "303 See Other", "Location: /"),
    "permanent redirect": reply(b"", "308 Permanent Redirect", "Location: http://169.254.169.254/"),
    "switch of protocols": reply(b"", "101 Switching Protocols", "Upgrade: websocket"),
    "compressed": reply(gzip.compress(b" " * 10_000_000), "200 OK", "Content-Encoding: gzip"),
    "nested JSON": reply(_DEEP),
    "nested JSON in an unknown field": reply(b'{"x":' + _DEEP),
    "nested JSON in an error": reply(b'{"error":' + _DEEP, "500 Internal Server Error"),
    "invalid UTF-8": reply(b'{"model":"\xff"}'),
    "invalid UTF-8 in an error": reply(
        b'{"error":{"code":"overloaded","message":"\xff","retryable":true}}', "429 Too Many"
    ),
    "400-digit number": reply(b'{"service":"digits","index":%b}' % _DIGITS),
    "400-digit score": _image(b'[["a",%b]]' % _DIGITS),
    "400-digit time": _image(rest=b',"timings_ms":{"decode":%b,"queue":1,"inference":1}' % _DIGITS),
    "negative time": _image(rest=b',"timings_ms":{"decode":-1e9,"queue":1,"inference":1}'),
    "no predictions": _image(b"[]"),
    "predictions of another type": _image(b'{"a":1}'),
    "NaN": _image(b'[["a",NaN]]'),
    "null": _image(b'[["a",null]]'),
    "no results": reply(b'{"model":"digits","version":"1","results":[]}'),
    "another JSON": reply(b"[1,2,3]"),
    "no JSON": reply(b"<html>"),
    "empty": reply(b""),
    "no content": reply(b"", "204 No Content"),
    "status 999": reply(b"", "999 Odd"),
    "an error without an end": reply(
        b'{"error":{"code":"no_such_code","message":"%b","retryable":true}}' % (b"a" * 50_000),
        "500 Internal Server Error",
    ),
    "Retry-After of 400 digits": reply(
        b'{"error":{"code":"overloaded","message":"no","retryable":true}}',
        "429 Too Many Requests",
        f"Retry-After: {_DIGITS.decode()}",
    ),
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
}

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_CHUNKED: Final = _OK + b"Transfer-Encoding: chunked\r\n\r\n"

# What comes first, and what comes again and again after it.
ENDLESS: Final = {
    "header fields": (_OK, b"X-A: b\r\n" * 1000),
    "a header field": (_OK + b"X-A: ", b"a" * 10_000),
    "a status line": (b"HTTP/1.1 200 ", b"a" * 10_000),
    "newlines": (b"", b"\r\n" * 5_000),
    "noise": (b"", b"\xff" * 10_000),
    "informational answers": (b"", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n" * 300),
    "a body": (_OK + b"\r\n", b" " * 10_000),
    "a body of an error": (b"HTTP/1.1 500 No\r\n\r\n", b" " * 10_000),
    "a body with a length": (_OK + b"Content-Length: 1000000000000\r\n\r\n", b" " * 10_000),
    "chunks": (_CHUNKED, b"1\r\n \r\n" * 2_000),
    "a chunk's extension": (_CHUNKED + b"1;", b"a" * 10_000),
    "a chunk's size": (_CHUNKED, b"0" * 10_000),
    "trailers": (_CHUNKED + b"0\r\n", b"X-A: b\r\n" * 1000),
}


class HostileServer:
    """Answers every request so, and counts what it could send.

    Attributes:
        port: where it listens.
        requests: the heads of the requests.
        sent_bytes: how many bytes the kernel or the peer took, at most 64 KB per connection more.
        most_bytes: the most of them on one connection.
    """

    def __init__(self, first: bytes, again: bytes = b"") -> None:
        self._first = first
        self._again = again
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.requests: list[bytes] = []
        self.most_bytes = 0

    def answer(self, first: bytes, again: bytes = b"") -> None:
        """Answer so from the next request on."""
        self._first, self._again = first, again

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(0)
        sent = 0
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                _, found, length = head.lower().partition(b"content-length: ")
                if found:
                    await reader.readexactly(int(length.split(b"\r\n")[0]))
                elif b"chunked" in head.lower():
                    await reader.readuntil(b"0\r\n\r\n")
                first, again = self._first, self._again
                writer.write(first)
                await writer.drain()
                while again:
                    writer.write(again)
                    await writer.drain()
                    sent += len(again)
                    self.most_bytes = max(self.most_bytes, sent)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def aclose(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next round


@contextlib.asynccontextmanager
async def serving_hostile(first: bytes, again: bytes = b"") -> AsyncIterator[HostileServer]:
    """A server that answers `first` to every request, and `again` after it without an end."""
    hostile = HostileServer(first, again)
    server = await asyncio.start_server(hostile.accept, "127.0.0.1", 0)
    hostile.port = server.sockets[0].getsockname()[1]
    try:
        yield hostile
    finally:
        await close_server(server)
        await hostile.aclose()
