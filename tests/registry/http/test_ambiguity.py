"""Requests that two programs could read in two ways: refused, and nothing after them is read.

What a proxy before the server takes for a body, the server must not take for a request. The oracle
is aiohttp's own parser, which is never stricter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.registry.http.conftest import Echo
from tests.support.http import raw_connection

# A request that must never be answered: it stands in what belongs to another one.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /plain HTTP/1.1\r\n"
HOST = b"Host: x\r\n"
END = b"\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

REFUSED = {
    "length and chunks": POST + HOST + b"Content-Length: 5\r\n" + CHUNKED + END + b"0\r\n\r\n",
    "chunks and length": POST + HOST + CHUNKED + b"Content-Length: 5\r\n" + END + b"0\r\n\r\n",
    "two lengths": POST + HOST + b"Content-Length: 0\r\nContent-Length: 43\r\n" + END,
    "two equal lengths": POST + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n" + END,
    "a list of lengths": POST + HOST + b"Content-Length: 0, 43\r\n" + END,
    "a signed length": POST + HOST + b"Content-Length: +43\r\n" + END,
    "a negative length": POST + HOST + b"Content-Length: -1\r\n" + END,
    "a hexadecimal length": POST + HOST + b"Content-Length: 0x2b\r\n" + END,
    "a length beyond 64 bits": POST + HOST + b"Content-Length: 18446744073709551659\r\n" + END,
    "a length with a space": POST + HOST + b"Content-Length: 4 3\r\n" + END,
    "a length that is empty": POST + HOST + b"Content-Length: \r\n" + END,
    "two codings": POST + HOST + b"Transfer-Encoding: gzip, chunked\r\n" + END + b"0\r\n\r\n",
    "chunked first": POST + HOST + b"Transfer-Encoding: chunked, identity\r\n" + END,
    "chunked twice": POST + HOST + CHUNKED * 2 + END + b"0\r\n\r\n",
    "a coding alike": POST + HOST + b"Transfer-Encoding: xchunked\r\n" + END,
    "a quoted coding": POST + HOST + b'Transfer-Encoding: "chunked"\r\n' + END,
    "a coding after a tabulator": POST + HOST + b"Transfer-Encoding:\x0bchunked\r\n" + END,
    "a space before the colon": POST + HOST + b"Content-Length : 43\r\n" + END,
    "a tabulator before the colon": POST + HOST + b"Transfer-Encoding\t: chunked\r\n" + END,
    "a folded field": POST + HOST + b"X: a\r\n Content-Length: 43\r\n" + END,
    "a folded coding": POST + HOST + b"Transfer-Encoding:\r\n chunked\r\n" + END,
    "a space first": POST + b" Host: x\r\n" + END,
    "a line feed alone": b"POST /plain HTTP/1.1\nHost: x\nContent-Length: 43\n\n",
    "a line feed in a field": POST + HOST + b"X: a\nContent-Length: 43\r\n" + END,
    "a carriage return in a field": POST + HOST + b"X: a\rContent-Length: 43\r\n" + END,
    "a NUL in a field": POST + HOST + b"X: a\x00b\r\n" + END,
    "a NUL in a name": POST + HOST + b"X\x00: a\r\n" + END,
    "a name of two words": POST + HOST + b"Content Length: 43\r\n" + END,
    "no name": POST + HOST + b": 43\r\n" + END,
    "no Host": POST + END,
    "version 2": b"POST /plain HTTP/2.0\r\n" + HOST + END,
    "version 0.9": b"GET /plain HTTP/0.9\r\n" + HOST + END,
    "an upgrade with chunks": POST
    + HOST
    + b"Connection: upgrade\r\nUpgrade: h2c\r\n"
    + CHUNKED
    + END
    + b"25\r\n",
    "a tunnel with a body": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 37\r\n" + END,
    "two Hosts": POST + HOST * 2 + END,
    "a chunk of a negative size": POST + HOST + CHUNKED + END + b"-1\r\nx\r\n0\r\n\r\n",
    "a chunk of 0x size": POST + HOST + CHUNKED + END + b"0x1\r\nx\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": POST + HOST + CHUNKED + END + b"10000000000000001\r\nx\r\n0\r\n\r\n",
    "a chunk of a size with a space": POST + HOST + CHUNKED + END + b"1 \r\nx\r\n0\r\n\r\n",
    "a chunk that is longer": POST + HOST + CHUNKED + END + b"1\r\nxy\r\n0\r\n\r\n",
    "a chunk with line feeds": POST + HOST + CHUNKED + END + b"1\nx\n0\n\n",
    "a trailer with a NUL": POST + HOST + CHUNKED + END + b"0\r\nX: \x00\r\n\r\n",
    "HTTP/0.9": b"POST /plain\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"POST /plain HTTP/1.2\r\n" + HOST + END,
    "HTTP of two digits": b"POST /plain HTTP/1.10\r\n" + HOST + END,
    "http in small letters": b"POST /plain http/1.1\r\n" + HOST + END,
    "a method in small letters": b"post /plain HTTP/1.1\r\n" + HOST + END,
    "a space in the path": b"POST /pl ain HTTP/1.1\r\n" + HOST + END,
    "a path without a slash": b"POST plain HTTP/1.1\r\n" + HOST + END,
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(
    name: str, echo: Echo
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(REFUSED[name] + SMUGGLED * 3)
        async with asyncio.timeout(10):
            text = await reader.read()
    assert text.count(b"HTTP/1.") == 1
    assert text.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    if text.startswith(b"HTTP/1.1 400"):
        assert b"Connection: close" in text
        error = json.loads(text.partition(b"\r\n\r\n")[2])["error"]
        assert error["message"].startswith("this is not a valid HTTP request: ")
    assert not [each for each in echo.seen if each[1] == "/smuggled"]


@pytest.mark.parametrize(
    "head",
    [
        POST + HOST + b"Content-Length: %d\r\n" % len(SMUGGLED) + END,
        b"GET /plain HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(SMUGGLED) + END,
        b"GET /now HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n" % len(SMUGGLED) + END,
        b"DELETE /aiohttp HTTP/1.1\r\n" + HOST + b"content-length:%d\r\n" % len(SMUGGLED) + END,
        POST + HOST + CHUNKED + END + b"%x;a=b\r\n" % len(SMUGGLED),
    ],
)
async def test_a_request_in_a_body_is_a_body(head: bytes, echo: Echo) -> None:
    end = b"\r\n0\r\nX: y\r\n\r\n" if CHUNKED in head else b""
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(head + SMUGGLED + end + b"GET /last HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(10):
            await reader.read()
    assert [(path, size) for _, path, size in echo.seen] == [
        (head.split()[1].decode(), len(SMUGGLED)),
        ("/last", 0),
    ]


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /plain HTTP/1.1\r\nX: ",
        b"GET /plain HTTP/1.1\r\n" + b"X: y\r\n" * 20,
        POST + HOST + CHUNKED + END + b"1\r\nx\r\n0\r\nX: ",
        POST + HOST + CHUNKED + END + b"1;x=",
    ],
)
async def test_what_does_not_end_is_not_kept(endless: bytes, echo: Echo) -> None:
    text = b""
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(endless)
        async with asyncio.timeout(10):
            for _ in range(100):
                writer.write(b"x" * 100_000)
                await asyncio.sleep(0)
                if reader.at_eof() or writer.transport.is_closing():
                    break
            with contextlib.suppress(ConnectionError):  # of bytes that were not read any more
                text += await reader.read()
    assert text.count(b"HTTP/1.1 ") <= 1
    assert echo.seen == []


LINES = [
    b"GET /a HTTP/1.1", b"POST /plain HTTP/1.1", b"POST /b HTTP/1.1", b"GET /c HTTP/1.0",
    b"OPTIONS * HTTP/1.1", b"GET http://h/d HTTP/1.1", b"CONNECT h:1 HTTP/1.1", b"PUT / HTTP/1.1",
]  # fmt: skip
FIELDS = [
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 3, 3", b"content-length:3",
    b"Transfer-Encoding: chunked", b"transfer-encoding: Chunked", b"Transfer-Encoding: gzip",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c",
    b"Upgrade: websocket", b"X: \xff", b"X:", b"X : y", b" folded", b"Host: y",
]  # fmt: skip
BODIES = [
    b"",
    b"",
    b"abc",
    b"0\r\n\r\n",
    b"3\r\nabc\r\n0\r\n\r\n",
    b"3;x=y\r\nabc\r\n",
    b"\r\n",
    b"0",
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
    lines = (draw(st.sampled_from(LINES)), b"Host: x", *fields, b"", b"")
    return b"\r\n".join(lines) + draw(st.sampled_from(BODIES))


def read_by_aiohttp(data: bytes) -> list[tuple[str, str, int]]:
    """Method, path and size of the body of each whole request that aiohttp's parser finds."""
    loop = asyncio.get_running_loop()
    protocol = BaseProtocol(loop)
    parser = HttpRequestParser(protocol, loop, 2**16)
    protocol._parser = parser
    found = []
    with contextlib.suppress(HttpProcessingError):
        for each in data:
            messages, upgraded, _ = parser.feed_data(bytes((each,)))
            found += messages
            if upgraded:  # which a server of aiohttp takes back when it has answered
                parser.set_upgraded(False)
    return [
        (message.method, message.path, body.total_bytes) for message, body in found if body.is_eof()
    ]


@given(parts=st.lists(requests(), min_size=1, max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_request_is_seen_that_aiohttp_does_not_see(parts: list[bytes], echo: Echo) -> None:
    data = b"".join(parts) + b"GET /last HTTP/1.0\r\n\r\n"
    echo.seen.clear()
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.1):  # it waits for the rest of a body
                await reader.read()
    theirs = iter(read_by_aiohttp(data))
    assert all(each in theirs for each in echo.seen)  # in the same order; some have no handler
