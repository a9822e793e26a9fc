"""Connections that want nothing, or too much: the same limits at worker, proxy and registry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psutil
import pytest

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.http.connection_config import ConnectionConfig
from tests.support.http import is_closed, raw_connection, read_answer
from tests.support.rig import serving

pytestmark = pytest.mark.shell

Serve = Callable[[ConnectionConfig], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def worker(connections: ConnectionConfig) -> AsyncIterator[int]:
    async with serving(connections=connections) as rig:
        yield rig.port


@asynccontextmanager
async def proxy(connections: ConnectionConfig) -> AsyncIterator[int]:
    config = ProxyConfig(registry="http://127.0.0.1:9", port=0, connections=connections)
    async with Proxy(config) as serving:
        yield serving.port


@asynccontextmanager
async def registry(connections: ConnectionConfig) -> AsyncIterator[int]:
    async with EmbeddedRegistry(port=0, connections=connections) as serving:
        yield serving.port


SERVERS = pytest.mark.parametrize("serve", [worker, proxy, registry])
PING = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def ping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    writer.write(PING)
    return (await read_answer(reader))[0]


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for each in data:
            writer.write(bytes([each]))
            await writer.drain()
            await asyncio.sleep(0.02)


@SERVERS
async def test_silent_half_headed_dripping_and_idle_connections_are_closed(serve: Serve) -> None:
    limits = ConnectionConfig(headers_timeout_s=0.3, idle_timeout_s=0.8)
    async with serve(limits) as port, contextlib.AsyncExitStack() as stack:
        now = asyncio.get_running_loop().time
        (silent, half, dripping, again, idle, used) = [
            await stack.enter_async_context(raw_connection(port)) for _ in range(6)
        ]
        half[1].write(b"GET / HTTP/1.1\r\nHost:")
        drips = [asyncio.create_task(drip(dripping[1], b"GET / HTTP/1.1\r\nX: " + b"x" * 1000))]
        for each in (again, idle, used):
            assert await ping(*each) == 404
        began = now()
        drips.append(asyncio.create_task(drip(again[1], b"GET / HTTP/1.1\r\nX: " + b"x" * 1000)))
        for reader, _ in (silent, half, dripping, again):
            assert await is_closed(reader)
        assert now() - began < 5
        assert await ping(*used) == 404
        assert await is_closed(idle[0])
        assert await is_closed(used[0])
        await asyncio.gather(*drips)


MALFORMED = {
    "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
    "a long line": b"GET /" + b"x" * 100_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "two lengths": b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length of words": b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    "a header without a colon": b"PUT /x HTTP/1.1\r\nHost: 127.0.0.1\r\nbad\r\n\r\n",
    "ESC in the method": b"\x1b[31mGET / HTTP/1.1\r\n\r\n",
    "a key with a control character": b"GET / HTTP/1.1\r\nAuthorization: Bearer SECRET\x01\r\n\r\n",
    "a key after a space": b"GET / HTTP/1.1\r\nAuthorization : Bearer SECRET\r\n\r\n",
    "a key on a line of its own": b"GET / HTTP/1.1\r\nAuthorization:\r\n SECRET\r\n\r\n",
    "a key that is too long": b"GET / HTTP/1.1\r\nAuthorization: SECRET"
    + b"x" * 9000
    + b"\r\n\r\n",
    "a URL of another version": b"GET /lease/SECRET/ HTTP/9.9\r\n\r\n",
    "a URL with a control character": b"GET /lease/SECRET/\x01 HTTP/1.1\r\n\r\n",
    "a long URL": b"GET /lease/SECRET" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n",
}


@SERVERS
@pytest.mark.parametrize("name", MALFORMED)
async def test_what_is_not_http_gets_a_typed_error_and_leaves_no_traceback(
    serve: Serve, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve(ConnectionConfig()) as port, raw_connection(port) as (reader, writer):
        with caplog.at_level(logging.DEBUG):
            writer.write(MALFORMED[name])
            status, headers, body = await read_answer(reader)
        assert (status, headers["content-type"]) == (400, "application/json")
        error = json.loads(body)["error"]
        assert (error["code"], error["retryable"]) == ("invalid_request", False)
        assert "not a valid HTTP request" in error["message"]
        assert len(error["message"]) < 300
        assert "SECRET" not in error["message"] + caplog.text
        if name == "a key with a control character":
            assert error["message"].endswith("in the header Authorization")
    assert not [record for record in caplog.records if record.name.startswith("aiohttp")]


@SERVERS
@pytest.mark.parametrize("reason", ["max_connections", "max_per_client"])
async def test_refused_connections_are_counted_by_the_limit(serve: Serve, reason: str) -> None:
    limits = ConnectionConfig(**{"max_per_client": 0, reason: 2})
    async with serve(limits) as port, contextlib.AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(raw_connection(port)) for _ in range(2)]
        for each in mine:
            assert await ping(*each) == 404
        before = await refused(*mine[0])
        for _ in range(3):
            async with raw_connection(port) as (reader, _):
                assert (await read_answer(reader))[0] == 429
        after = await refused(*mine[0])
        assert after == {**before, reason: before[reason] + 3}
        assert set(after) == {"max_connections", "max_per_client", "descriptors", "tls_handshake"}


async def refused(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, float]:
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    status, _, body = await read_answer(reader)
    assert status == 200
    found = re.findall(
        r'^fingerpost_refused_connections_total{reason="(\w+)"} (\S+)$', body.decode(), re.M
    )
    return {reason: float(count) for reason, count in found}


@SERVERS
async def test_too_many_connections_are_refused_and_room_is_used_again(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    limits = ConnectionConfig(max_connections=20, max_per_client=4)
    async with serve(limits) as port, contextlib.AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(raw_connection(port)) for _ in range(4)]
        for each in mine:
            assert await ping(*each) == 404
        for _ in range(30):
            async with raw_connection(port) as (reader, _):
                status, headers, body = await read_answer(reader)
                assert (status, headers["retry-after"]) == (429, "1")
                assert json.loads(body)["error"]["code"] == "overloaded"
                assert await is_closed(reader)
        assert sum(record.message.startswith("refused") for record in caplog.records) == 1
        mine[0][1].close()
        await mine[0][1].wait_closed()
        async with asyncio.timeout(10):
            while True:
                async with raw_connection(port) as (reader, writer):
                    with contextlib.suppress(ConnectionError):
                        if await ping(reader, writer) == 404:
                            break


USED_UP = """
import asyncio, resource, sys
from fingerpost.registry.http.connection_config import ConnectionConfig
from fingerpost.registry.embedded import EmbeddedRegistry

async def main():
    limits = ConnectionConfig(max_connections=1000, max_per_client=0)
    async with EmbeddedRegistry(port=0, connections=limits) as serving:
        print(serving.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)
    await asyncio.sleep(1.5)  # asyncio accepts again a second after the last descriptor was used up

resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
import {loop} as loop
loop.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_with_descriptors_used_up_a_server_goes_on_and_says_so_in_a_line(loop: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", USED_UP.format(loop=loop), stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    usage = psutil.Process(process.pid)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(200):  # of which it can hold some 40
            await stack.enter_async_context(raw_connection(port))
        began = usage.cpu_times().user
        await asyncio.sleep(2.5)
        assert usage.cpu_times().user - began < 1.0
    async with asyncio.timeout(10):
        while True:  # asyncio accepts again within a second
            with contextlib.suppress(ConnectionError, IndexError):
                async with raw_connection(port) as (reader, writer):
                    if await ping(reader, writer) == 404:
                        break
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(100):  # used up when it ends
            await stack.enter_async_context(raw_connection(port))
        _, errors = await process.communicate(b"")
    assert process.returncode == 0
    assert b"Traceback" not in errors
    assert len(errors) < 1000


async def test_a_body_in_small_chunks_is_the_same_body() -> None:
    from tests.support.colours import encoded

    image = encoded("red") + bytes(100_000)  # a tail does no harm
    async with serving() as rig:
        for size in (1, 7, 20_000):
            pieces = [image[at : at + size] for at in range(0, len(image), size)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
            head = PING.replace(b"GET /nothing", b"POST /v1/classify/colours")[:-2]
            head += b"Transfer-Encoding: chunked\r\n"
            async with raw_connection(rig.port) as (reader, writer):
                writer.write((head + b"\r\n" + body) * 3 + PING)  # one after the other, at once
                for _ in range(3):
                    status, _, answer = await read_answer(reader)
                    assert status == 200
                    assert json.loads(answer)["results"][0]["predictions"][0][0] == "red"
                assert (await read_answer(reader))[0] == 404


@pytest.mark.parametrize(
    ("serve", "head"),
    [
        (worker, b"POST /v2/models/colours/infer HTTP/1.1\r\n"),
        (worker, b"POST /v1/classify/colours HTTP/1.1\r\n"),
        (registry, b"PUT /v1/agent/service/register HTTP/1.1\r\n"),
    ],
)
async def test_a_body_that_is_not_http_gets_a_typed_error_and_leaves_no_traceback(
    serve: Serve, head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fields = b"Host: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serve(ConnectionConfig()) as port, raw_connection(port) as (reader, writer):
        writer.write(head + fields + b"1\r\nx\r\nwords\r\n")
        status, _, body = await read_answer(reader)
        assert status == 400
        assert "invalid character in chunk size" in str(json.loads(body)["error"]).lower()
        assert await is_closed(reader)
    assert not [record for record in caplog.records if record.exc_info]
