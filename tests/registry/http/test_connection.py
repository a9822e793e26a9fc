"""The HTTP server over plain sockets: bodies, pipelines, backpressure, clients that leave."""

from __future__ import annotations

import asyncio
import random
import zlib
from typing import Any, cast

import pytest
from tests.registry.http.conftest import Echo
from tests.support.http import is_closed, raw_connection, read_answer
from tests.support.waiting import until

from fingerpost.registry.http.body import Body

BOTH = pytest.mark.parametrize("path", ["/plain", "/aiohttp"])


def request(path: str, body: bytes = b"", *headers: str, method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers)
    return "\r\n".join((*lines, "", "")).encode() + body


def chunked(path: str, body: bytes, size: int) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head.encode() + chunks + b"0\r\n\r\n"


def expected(path: str, body: bytes) -> bytes:
    return f"{path} {len(body)} {zlib.crc32(body)}".encode()


async def test_the_same_bytes_get_the_same_answers_however_they_are_cut(echo: Echo) -> None:
    picks = random.Random(4)
    bodies = [picks.randbytes(size) for size in (0, 1, 700, 20_000, 40_000, 300_000)]
    for _ in range(12):
        sent, wanted = b"", []
        for _ in range(6):
            path, body = picks.choice(("/plain", "/aiohttp", "/plain?a=1")), picks.choice(bodies)
            whole = picks.random() < 0.5
            sent += request(path, body) if whole else chunked(path, body, picks.choice((9, 5000)))
            wanted.append(expected(path, body))
        async with raw_connection(echo.port) as (reader, writer):
            cuts = sorted(picks.sample(range(len(sent)), picks.choice((0, 1, 5, 40))))
            for start, end in zip((0, *cuts), (*cuts, len(sent)), strict=True):
                writer.write(sent[start:end])
                if picks.random() < 0.5:
                    await asyncio.sleep(0)
            for each in wanted:
                status, _, text = await read_answer(reader)
                assert (status, text) == (200, each)


@BOTH
async def test_an_image_byte_by_byte_is_the_same_image(echo: Echo, path: str) -> None:
    body = bytes(range(256))
    async with raw_connection(echo.port) as (reader, writer):
        for each in request(path, body) + chunked(path, body, 3):
            writer.write(bytes((each,)))
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await read_answer(reader))[2] == expected(path, body)


@BOTH
async def test_a_body_that_nobody_reads_yet_pauses_its_client(echo: Echo, path: str) -> None:
    echo.wait.clear()
    size = 32_000_000
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(request(path, bytes(size)) + request("/plain", b"next"))
        before = None
        async with asyncio.timeout(10):
            while before != (before := writer.transport.get_write_buffer_size()):
                await asyncio.sleep(0.1)  # for as long as more of it goes
        assert before > size / 2
        echo.wait.set()
        assert (await read_answer(reader))[2] == expected(path, bytes(size))
        assert (await read_answer(reader))[2] == expected("/plain", b"next")


async def test_thousands_of_requests_at_once_are_answered_in_their_order(echo: Echo) -> None:
    paths = [(f"/plain?{number}", f"/aiohttp?{number}", "/now") for number in range(1500)]
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(b"".join(request(path, method="GET") for each in paths for path in each))
        for each in paths:
            for path in each:
                wanted = b"now" if path == "/now" else expected(path, b"")
                assert (await read_answer(reader))[2] == wanted


async def test_a_client_that_reads_no_answers_is_not_read_either(echo: Echo) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        ask = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(ask * 400_000)
        before = None
        async with asyncio.timeout(20):
            while before != (before := writer.transport.get_write_buffer_size()):
                await asyncio.sleep(0.2)  # for as long as more of it goes
        assert before > 1_000_000
        async with raw_connection(echo.port) as other:
            other[1].write(request("/plain", b"x"))
            assert (await read_answer(other[0]))[0] == 200
        writer.transport.abort()


async def test_bodies_of_requests_that_wait_pause_their_client(echo: Echo) -> None:
    echo.wait.clear()
    body, count = bytes(500_000), 31
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(request("/plain", body) * count)
        await until(lambda: echo.busy())
        (connection,) = cast("Any", echo.runner.server)._connections
        await until(lambda: connection._many_wait)
        assert 0 < len(connection._next) <= 4
        echo.wait.set()
        for _ in range(count):
            assert (await read_answer(reader))[2] == expected("/plain", body)


def test_only_its_own_pause_is_ended_by_a_body_that_is_read() -> None:
    paused = []

    def hold(*, wait: bool) -> None:
        paused.append(wait)

    first, second = Body(4, hold), Body(4, hold)
    first.feed_data(b"12345")
    first.feed_eof()  # and the connection goes on to the next
    second.feed_data(b"12345")
    assert first.read_nowait() == b"12345"
    assert paused == [True, True]
    second.feed_data(b"6")
    assert second.read_nowait() == b"123456"
    assert paused == [True, True, True, False]


@pytest.mark.parametrize("path", ["/plain", "/aiohttp", "/now"])
async def test_a_trailer_without_an_end_is_refused(echo: Echo, path: str) -> None:
    """The parser keeps a field until it ends, also of a body that nobody has asked for."""
    async with raw_connection(echo.port) as (_, writer):
        writer.write(chunked(path, b"1", 1).replace(b"POST", b"GET")[:-2] + b"X: ")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(10):
                for _ in range(100):
                    writer.write(b"a" * 100_000)
                    await writer.drain()


@BOTH
async def test_a_pipeline_leaves_others_their_turn(echo: Echo, path: str) -> None:
    async with raw_connection(echo.port) as (_, writer), raw_connection(echo.port) as other:
        count = 500  # which are read at once
        writer.write(request(path, method="GET") * count)
        other[1].write(request("/plain", b"other"))
        assert (await read_answer(other[0]))[2] == expected("/plain", b"other")
        assert len(echo.seen) < count / 2


@BOTH
@pytest.mark.parametrize("body_sent", [True, False])
async def test_a_client_that_leaves_cancels_its_request(
    echo: Echo, path: str, *, body_sent: bool
) -> None:
    if body_sent:
        echo.wait.clear()
    async with raw_connection(echo.port) as (_, writer):
        whole = request(path, b"12345")
        writer.write(whole if body_sent else whole[:-2])
        await until(lambda: echo.busy())
    await until(lambda: echo.left == ["127.0.0.1"])
    assert echo.seen == []


@BOTH
async def test_a_body_that_nobody_wants_is_read_to_its_end(echo: Echo, path: str) -> None:
    """Whoever still sends does not read the answer."""

    async def refuse(request: object) -> object:
        from aiohttp import web

        return web.Response(status=413)

    echo._plain = refuse  # type: ignore[method-assign, assignment]
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(request("/plain", bytes(5_000_000)) + request(path))
        assert (await read_answer(reader))[0] == 413
        assert (await read_answer(reader))[0] == (413 if path == "/plain" else 200)


@BOTH
async def test_a_body_that_breaks_off_is_answered_once_and_closes(echo: Echo, path: str) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        broken = chunked(path, b"123456", 3).replace(b"3\r\n456", b"x\r\n456")
        writer.write(broken + request("/plain"))
        rest = await reader.read()
        assert rest.count(b"HTTP/1.1 ") <= 1
        assert echo.seen == []


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET /aiohttp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c", 200),
        ("GET /plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket", 200),
        ("GET http://elsewhere/aiohttp HTTP/1.1\r\nHost: x", 200),
        ("GET /plain HTTP/1.1\r\nHost: x\r\nX: " + "y" * 8000, 200),
        ("\r\n\r\nGET /plain HTTP/1.1\r\nHost: x", 200),
    ],
)
async def test_a_connection_goes_on_after_an_odd_request(
    echo: Echo, head: str, status: int
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        for _ in range(2):
            writer.write(f"{head}\r\n\r\n".encode())
            assert (await read_answer(reader))[0] == status
        writer.write(request("/plain", b"1"))
        assert (await read_answer(reader))[2] == expected("/plain", b"1")


@BOTH
@pytest.mark.parametrize("size", [0, 1, 37, 5000, 300_000])
@pytest.mark.parametrize("cut", [0, 1, 20])
async def test_the_body_of_an_upgrade_is_its_own_and_not_the_next_request(
    echo: Echo, path: str, size: int, cut: int
) -> None:
    """Upgrades are not offered; Java's client asks for HTTP/2 in this way, also with an image."""
    body = (request("/smuggled", method="GET") * 6000)[:size]
    whole = request(path, body, "Connection: upgrade", "Upgrade: h2c")
    end = len(whole) - size
    async with raw_connection(echo.port) as (reader, writer):
        for _ in range(2):
            writer.write(whole[: end + cut])
            if cut < size:
                await until(lambda: echo.busy())
            writer.write(whole[end + cut :])
            assert (await read_answer(reader))[2] == expected(path, body)
        writer.write(whole * 2 + request("/plain", b"next"))
        for each in (expected(path, body), expected(path, body), expected("/plain", b"next")):
            assert (await read_answer(reader))[2] == each


@BOTH
@pytest.mark.parametrize(
    ("http", "connection", "said", "stays"),
    [
        ("1.1", "", None, True),
        ("1.1", "Connection: close\r\n", "close", False),
        ("1.0", "", None, False),
        ("1.0", "Connection: keep-alive\r\n", "keep-alive", True),
    ],
)
async def test_who_keeps_a_connection_and_what_is_said_of_it(
    echo: Echo, path: str, http: str, connection: str, said: str | None, *, stays: bool
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        for _ in range(2 if stays else 1):
            writer.write(f"GET {path} HTTP/{http}\r\nHost: x\r\n{connection}\r\n".encode())
            status, headers, _ = await read_answer(reader)
            assert (status, headers.get("connection")) == (200, said)
        assert stays or await is_closed(reader)


async def test_a_shutdown_waits_for_answers_and_closes_idle_connections() -> None:
    echo = Echo()
    async with echo.listening():
        echo.wait.clear()
        async with raw_connection(echo.port) as idle, raw_connection(echo.port) as (reader, writer):
            writer.write(request("/plain", b"12"))
            await until(lambda: echo.busy())
            ending = asyncio.create_task(echo.runner.cleanup())
            assert await is_closed(idle[0])
            echo.wait.set()
            assert (await read_answer(reader))[2] == expected("/plain", b"12")
            assert await is_closed(reader)
            await ending


async def test_a_fault_of_the_server_is_said_in_its_log_and_ends_one_connection(
    echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(request("/plain", b"1") + request("/fault") + request("/plain", b"2"))
        assert (await read_answer(reader))[2] == expected("/plain", b"1")
        status, headers, body = await read_answer(reader)
        assert (status, headers["connection"]) == (500, "close")
        assert b"internal error" in body
        assert await is_closed(reader)
    assert "ZeroDivisionError" in caplog.text


async def test_many_requests_for_another_protocol_at_once(echo: Echo) -> None:
    upgrade = b"GET /plain HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with raw_connection(echo.port) as (reader, writer):
        writer.write(upgrade * 3000)
        for _ in range(3000):
            assert (await read_answer(reader))[0] == 200
