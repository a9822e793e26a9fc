"""Bodies as they arrive on a real socket: whole, in pieces, too long, malformed, stalled, cut."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fingerpost.errors import FingerpostError
from fingerpost.security.grant import NO_LIMITS
from fingerpost.worker.config import RequestConfig, WorkerConfig
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.images import ImageConfig
from fingerpost.worker.serving.frames import Frames
from fingerpost.worker.serving.memory import BodyMemory
from fingerpost.worker.serving.uploads import Uploads, check_image_headers


def _uploads(config: WorkerConfig) -> Uploads:
    memory = BodyMemory(config.requests)
    frames = Frames(config.images, memory, max_bytes=config.requests.max_bytes)
    return Uploads(config, memory, frames)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[TestServer, list[object]]]:
    """A server that answers with the sizes it read; `seen` has the images, or the errors."""
    settings = {"requests": RequestConfig(max_bytes=3_000_000, body_timeout_s=5.0), **settings}
    config = WorkerConfig(
        registry="http://127.0.0.1:1", images=ImageConfig(max_bytes=1_000_000), **settings
    )
    uploads, seen = _uploads(config), list[object]()

    async def answer(request: web.Request) -> web.Response:
        held: Any = SimpleNamespace(body_bytes=0, grant=NO_LIMITS)
        try:
            if request.path == "/body":
                found: object = await uploads.read_body(request, held, 2_000_000)
            else:
                check_image_headers(request, config)
                found = await uploads.read_images(request, held)
        except FingerpostError as error:
            seen.append(error)
            response = web.Response(status=error.status, body=error.to_json())
            response.force_close()
            return response
        seen.append(found)
        return web.Response()

    app = web.Application()
    app.router.add_post("/{any:.*}", answer)
    server = TestServer(app, host="127.0.0.1")
    async with server:
        yield server, seen


async def send(url: str, data: bytes | AsyncIterator[bytes], **options: Any) -> int:
    body = io.BytesIO(data) if isinstance(data, bytes) else data
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=body, **options) as response,
    ):
        return response.status


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """A multipart body of `(name, file name, data)`, whose boundary is xyz."""
    made = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename else ""
        head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        made += head.encode() + data + b"\r\n"
    return made + b"--xyz--\r\n"


BOUNDARY = {"Content-Type": "multipart/form-data; boundary=xyz"}


def counting(size: int) -> bytes:
    """So many bytes in which a lost or doubled piece shows."""
    return b"".join(number.to_bytes(4, "big") for number in range(size // 4 + 1))[:size]


async def in_pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 20_000, 640_000, 1_000_000])
async def test_a_raw_body_is_one_image(size: int) -> None:
    data = counting(size)
    async with serving() as (server, seen):
        form_type = {"Content-Type": "application/x-www-form-urlencoded"}  # curl --data-binary
        assert await send(str(server.make_url("/")), data, headers=form_type) == 200
        assert await send(str(server.make_url("/")), in_pieces(data, 7_000)) == 200
    assert seen == [[("data", data)], [("data", data)]]


async def test_several_images_may_be_larger_together_than_one_alone() -> None:
    a, b, c = counting(900_000), counting(1_000_000), counting(13)
    body = form(
        ("data", None, a), ("other", None, b"passed over"), ("x", "b.jpg", b), ("y", "c", c)
    )
    async with serving() as (server, seen):
        assert await send(str(server.make_url("/")), body, headers=BOUNDARY) == 200
        pieces = in_pieces(body, 40_000)
        assert await send(str(server.make_url("/")), pieces, headers=BOUNDARY) == 200
    assert seen == 2 * [[("data", a), ("b.jpg", b), ("c", c)]]


async def test_any_other_body_is_read_as_it_is() -> None:
    data = counting(2_000_000)
    async with serving() as (server, seen):
        assert await send(str(server.make_url("/body")), data) == 200
        assert await send(str(server.make_url("/body")), b"") == 200
        assert await send(str(server.make_url("/body")), data + b"x") == 413
        assert await send(str(server.make_url("/body")), in_pieces(data + b"x", 9_000)) == 413
    assert seen[:2] == [data, b""]


MEGABYTE = bytes(1_000_000)
REFUSED = {
    "an image too large": (MEGABYTE + b"x", {}, 413),
    "a part too large": (form(("data", "a", MEGABYTE + b"x")), BOUNDARY, 413),
    "parts too large together": (form(*[("data", "a", MEGABYTE)] * 3), BOUNDARY, 413),
    "a part passed over is too large": (form(("other", None, MEGABYTE + b"x")), BOUNDARY, 413),
    "more images than wait": (form(*[("data", "a", b"x")] * 9), BOUNDARY, 413),
    "compressed": (b"x", {"Content-Encoding": "gzip"}, 415),
    "no image": (form(("other", None, b"x")), BOUNDARY, 400),
    "no boundary": (b"x", {"Content-Type": "multipart/form-data"}, 400),
    "no parts": (b"rubbish", BOUNDARY, 400),
    "no end": (b'--xyz\r\nContent-Disposition: form-data; name="data"\r\n\r\nabc', BOUNDARY, 400),
    "nested": (b"--xyz\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\nabc", BOUNDARY, 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused(name: str) -> None:
    data, headers, status = REFUSED[name]
    async with serving(batching=BatchingConfig(max_queue=8)) as (server, seen):
        with suppress(aiohttp.ClientConnectionError):  # closed before all was sent
            assert await send(str(server.make_url("/")), data, headers=headers) == status
    (error,) = seen
    assert isinstance(error, FingerpostError)
    assert error.status == status


async def test_a_body_without_end_is_read_no_further_than_the_limit() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 100_000
            yield bytes(100_000)

    async with serving() as (server, seen):
        with suppress(aiohttp.ClientConnectionError):
            assert await send(str(server.make_url("/")), endless()) == 413
    assert isinstance(seen[0], FingerpostError)
    assert sent < 20_000_000  # what the sockets between hold


HEADERS = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n%s\r\n"
PART = b'--xyz\r\nContent-Disposition: form-data; name="data"\r\n\r\n'
STARTS = {
    "raw": HEADERS % (b"/", b"") + b"half",
    "body": HEADERS % (b"/body", b"") + b"half",
    "multipart": HEADERS % (b"/", b"Content-Type: multipart/form-data; boundary=xyz\r\n") + PART,
}


@pytest.mark.parametrize("name", STARTS)
async def test_a_stalled_upload_is_answered(name: str) -> None:
    async with serving(requests=RequestConfig(body_timeout_s=0.1)) as (server, seen):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(STARTS[name])
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()
    (error,) = seen
    assert "stalled: no byte came for 0.1 s" in str(error)
