"""`GET /` in the same words again, which is not read again; over a plain socket."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.proxy.world import World
from tests.support.sockets import received
from tests.support.waiting import until

from fingerpost.proxy.routes import ProxyRoutes

ASK = b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"


class Line:
    """A connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await received(self.writer)  # so that they are read one by one

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.splitlines()
            fields = dict(line.split(": ", 1) for line in lines if line)
            body = await self.reader.readexactly(int(fields["Content-Length"]))
        return int(status.split()[1]), fields, body

    async def ask(self, request: bytes = ASK) -> tuple[int, dict[str, str], bytes]:
        self.writer.write(request)
        return await self.answer()


@asynccontextmanager
async def connected(world: World) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.proxy.port)
    yield Line(reader, writer)
    writer.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """A mark for each `GET /` that was read and routed."""
    seen: list[bytes] = []
    whole = ProxyRoutes._get_address

    async def counted(self, request):
        seen.append(request.path_qs)
        return await whole(self, request)

    monkeypatch.setattr(ProxyRoutes, "_get_address", counted)
    return seen


@pytest.fixture
async def three(read: list[bytes], world: World) -> World:
    for name in ("a", "b", "c"):
        await world.add(name)
    await world.until(3)
    return world


async def test_the_same_words_are_read_once_and_get_the_same_kind_of_answer(
    three: World, read: list[bytes]
) -> None:
    async with connected(three) as line, connected(three) as other:
        answers = [await line.ask() for _ in range(6)]
        assert len(read) == 1
        await other.ask()
        answers += [await other.ask() for _ in range(2)]
        assert len(read) == 1  # for all connections
    status, fields, _ = answers[0]
    for each in answers:
        assert each[0] == status == 200
        assert each[1].keys() == fields.keys()
        assert each[1]["Content-Type"] == "text/plain; charset=utf-8"
        assert re.fullmatch(rb"127\.0\.0\.1:\d+\n", each[2])
    assert len({body for _, _, body in answers[:3]}) == 3
    async with three.http.get("/metrics") as response:
        assert 'lookups_total{kind="address",outcome="ok"} 9.0' in await response.text()


async def test_it_goes_by_the_present_list(three: World, read: list[bytes]) -> None:
    async with connected(three) as line:
        await line.ask()
        for registration in three.registrations.values():
            await registration.deregister()
        await three.until(0)
        status, _, body = await line.ask()
        assert (status, b"no_worker" in body) == (503, True)


async def test_many_kinds_of_requests_do_not_end_the_fast_path(
    three: World, read: list[bytes]
) -> None:
    async with connected(three) as line:
        for number in range(300):  # more than are remembered
            await line.ask(ASK.replace(b"curl/8", b"curl/%d" % number))
        assert len(read) == 300
        await line.ask(ASK.replace(b"curl/8", b"curl/0"))
        parsed = len(read)
        for _ in range(3):
            await line.ask(ASK.replace(b"curl/8", b"curl/0"))
        assert len(read) == parsed


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /? HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000 + b"\r\n\r\n",
    ],
)
async def test_other_words_are_read_each_time(
    words: bytes, three: World, read: list[bytes]
) -> None:
    for _ in range(3):
        async with connected(three) as line:
            assert (await line.ask(words))[0] == 200
    assert len(read) == 3


async def test_what_follows_the_beginning_of_another_request_is_not_taken_for_one(
    three: World, read: list[bytes]
) -> None:
    async with connected(three) as line:
        await line.ask()
        await line.ask()
        assert len(read) == 1
        # As the value of a header of another request.
        await line.send(b"GET /health/live HTTP/1.1\r\nX: ", ASK)
        status, _, body = await line.answer()
        assert (status, body) == (200, b'{"status":"live"}')
        # As a body.
        head = b"POST /v1/services HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(ASK)
        await line.send(head, ASK)
        assert (await line.answer())[0] == 405
        # Two at once, and one in two pieces.
        await line.send(ASK + ASK)
        assert (await line.answer())[0] == (await line.answer())[0] == 200
        await line.send(ASK[:20], ASK[20:])
        assert (await line.answer())[0] == 200
        assert len(read) == 4
        line.writer.write(b"GET /v1/services HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"digits" in (await line.answer())[2]


async def test_a_proxy_that_leaves_says_so(three: World) -> None:
    async with connected(three) as line:
        await line.ask()
        leaving = asyncio.create_task(three.proxy.leave(0.2))
        await asyncio.sleep(0)
        status, fields, _ = await line.ask()
        assert (status, fields["Connection"]) == (200, "close")
        await leaving


NEW = {"fingerpost": "0.2.0"}


async def test_the_address_names_the_process_and_the_model_for_curl_alone(
    world: World, read: list[bytes]
) -> None:
    """As release 0.1 answered, so that programs that split `host:port` keep working."""
    await world.add("a", boot_id=4711, meta=NEW)
    await world.until(1)
    address = f"127.0.0.1:{world.workers['a'].port}"
    identified = f"{address}/instance/4711/digits\n".encode()
    silent = ASK.replace(b"Accept: */*\r\n", b"")
    text = ASK.replace(b"*/*", b"text/plain")
    async with connected(world) as line:
        for _ in range(3):  # also without parsing
            assert (await line.ask())[2] == identified
            assert (await line.ask(silent))[2] == f"{address}\n".encode()
            assert (await line.ask(text))[2] == f"{address}\n".encode()
        assert len(read) < 9
    async with world.http.post(
        "/v1/classify/digits?top=1", data=b"1", allow_redirects=False
    ) as response:
        location = f"http://{address}/instance/4711/digits/v1/classify/digits?top=1"
        assert response.headers["Location"] == location


@pytest.mark.parametrize(
    "fields", [{"meta": {"fingerpost": "0.1.0"}, "boot_id": 7}, {"boot_id": 7}, {"meta": NEW}]
)
async def test_a_worker_that_does_not_know_the_path_is_named_by_its_address(
    world: World, fields: dict[str, object]
) -> None:
    await world.add("a", **fields)
    await world.until(1)
    async with connected(world) as line:
        address = f"127.0.0.1:{world.workers['a'].port}\n".encode()
        assert [(await line.ask())[2] for _ in range(2)] == [address] * 2


async def test_a_worker_whose_address_another_process_has_is_not_named(world: World) -> None:
    await world.add("a", boot_id=7)
    await world.add("b", boot_id=8)
    await world.until(2)
    world.workers["a"].boot_id = 9
    good = f"127.0.0.1:{world.workers['b'].port}\n".encode()

    async def left_out() -> bool:
        async with connected(world) as line:
            return {(await line.ask())[2] for _ in range(4)} == {good}

    await until(left_out, "only the other one is named", within_s=10)
