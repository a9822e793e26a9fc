"""HTTP itself, on raw connections: what is written, and which connections are closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fingerpost.registry import LoadReport
from fingerpost.worker.config import RequestConfig
from tests.support.colours import encoded
from tests.support.http import read_answer
from tests.support.rig import Rig, serving

IMAGE = encoded("red")


@contextlib.asynccontextmanager
async def connected(
    rig: Rig,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def request(
    path: str = "/v1/classify/colours", body: bytes = IMAGE, *more: str, http: str = "1.1"
) -> bytes:
    lines = (f"POST {path} HTTP/{http}", "Host: x", f"Content-Length: {len(body)}", *more)
    return "\r\n".join((*lines, "", "")).encode() + body


async def closed(reader: asyncio.StreamReader) -> bool:
    """True once the server has closed; it has nothing more to say."""
    async with asyncio.timeout(10):
        try:
            return await reader.read() == b""
        except ConnectionResetError:  # by what it had not read
            return True


# Shortcuts.


@pytest.mark.parametrize("path", ["/v1/classify/colours", "/v1/classify/colours@7?top=2", "/"])
async def test_the_second_answer_on_a_path_is_as_the_first(path: str) -> None:
    async with serving() as rig, connected(rig) as (reader, writer):
        seen = []
        for _ in range(3):
            writer.write(request(path))
            status, headers, body = await read_answer(reader)
            assert status == 200
            assert headers["content-type"] == "application/json"
            seen.append((headers.keys(), body.partition(b"timings")[0]))
            report = LoadReport.from_header(headers["endpoint-load-metrics"])
            assert (report.rif, report.seq) == (0, len(seen))
        assert seen[0] == seen[1] == seen[2]


async def test_pipelined_requests_are_answered_in_turn() -> None:
    async with serving() as rig, connected(rig) as (reader, writer):
        colours = ("red", "green", "blue", "green")
        writer.write(b"".join(request(body=encoded(colour)) for colour in colours))
        for colour in colours:
            status, _, body = await read_answer(reader)
            assert (status, colour in str(body.partition(b"]")[0])) == (200, True)


@pytest.mark.parametrize(
    ("http", "wanted", "said", "stays"),
    [
        ("1.1", "close", "close", False),
        ("1.0", "keep-alive", "keep-alive", True),
        ("1.0", "close", None, False),
    ],
)
async def test_connections_that_end_say_so(
    http: str, wanted: str, said: str | None, *, stays: bool
) -> None:
    async with serving() as rig:
        for _ in range(2):
            async with connected(rig) as (reader, writer):
                writer.write(
                    request("/v1/classify/colours", IMAGE, f"Connection: {wanted}", http=http)
                )
                status, headers, _ = await read_answer(reader)
                assert (status, headers.get("connection")) == (200, said)
                if stays:
                    writer.write(request())
                    assert (await read_answer(reader))[0] == 200
                else:
                    assert await closed(reader)


async def test_a_path_with_a_shortcut_still_refuses() -> None:
    async with serving() as rig, connected(rig) as (reader, writer):
        writer.write(request())
        assert (await read_answer(reader))[0] == 200
        for body, more, expected in (
            (b"no image", (), 415),
            (IMAGE[:50], (), 422),
            (IMAGE, ("Content-Encoding: gzip",), 415),
            (IMAGE, ("Fingerpost-Deadline-Ms: 0",), 504),
        ):
            writer.write(request("/v1/classify/colours", body, *more))
            status, headers, text = await read_answer(reader)
            assert status == expected
            assert text.startswith(b'{"error":{"code":')
            LoadReport.from_header(headers["endpoint-load-metrics"])
        writer.write(request().replace(b"POST", b"GET", 1))
        assert (await read_answer(reader))[0] == 405
        writer.write(request("/v1/classify/colours", IMAGE, "Expect: 100-continue"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 100")
        await reader.readline()
        assert (await read_answer(reader))[0] == 200


# Slow connections.


async def test_connections_without_all_their_headers_are_closed() -> None:
    async with (
        serving(requests=RequestConfig(headers_timeout_s=0.2)) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        silent, slow, again = [await stack.enter_async_context(connected(rig)) for _ in range(3)]
        again[1].write(request())
        assert (await read_answer(again[0]))[0] == 200
        again[1].write(b"POST / HTTP/1.1\r\nHo")
        dripping = asyncio.create_task(_drip(slow[1]))
        for reader, _ in (silent, slow, again):
            assert await closed(reader)
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)


async def test_idle_connections_and_long_uploads_are_kept() -> None:
    async with (
        serving(requests=RequestConfig(headers_timeout_s=0.2)) as rig,
        contextlib.AsyncExitStack() as stack,
    ):
        idle, upload = [await stack.enter_async_context(connected(rig)) for _ in range(2)]
        silent = await stack.enter_async_context(connected(rig))
        idle[1].write(request())
        assert (await read_answer(idle[0]))[0] == 200
        whole = request()
        cut = len(whole) - len(IMAGE)
        upload[1].write(whole[: cut + 10])
        for _ in range(2):  # as long as a silent one lives, twice
            assert await closed(silent[0])
            silent = await stack.enter_async_context(connected(rig))
        upload[1].write(whole[cut + 10 :])
        idle[1].write(request())
        for reader, _ in (upload, idle):
            assert (await read_answer(reader))[0] == 200


async def _drip(writer: asyncio.StreamWriter) -> None:
    """Headers without end, a byte at a time."""
    writer.write(b"POST / HTTP/1.1\r\nX: ")
    while True:
        writer.write(b"x")
        await asyncio.sleep(0.02)
