"""Heads that are not parsed again: only those that mean the same, and only where one may begin."""

from __future__ import annotations

import asyncio
import contextlib
import zlib
from typing import Any, cast

import pytest
from aiohttp import HttpVersion11
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.registry.http.conftest import Echo
from tests.registry.http.test_ambiguity import read_by_aiohttp, requests
from tests.support.http import is_closed, raw_connection, read_answer
from tests.support.waiting import until

from fingerpost.registry.http.body import NO_BODY
from fingerpost.registry.http.connection import HttpConnection
from fingerpost.registry.http.head import RequestLines
from fingerpost.registry.http.repeated import RepeatedHead, RepeatedHeads
from fingerpost.registry.http.request import PlainRequest

NUMBERS = frozenset({"content-length", "left-ms"})
HEAD = (
    b"POST /plain?a=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b\r\nNumber: 7\r\n"
    b"Left-Ms: 250\r\nContent-Length: 12\r\n\r\n"
)


async def handler(_: PlainRequest) -> bytes:
    return b""


def parse(head: bytes, *, keep_alive: bool = True) -> tuple[RequestLines, PlainRequest]:
    """What the parser finds in a head, and what is made of it."""
    lines = RequestLines()
    first, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, _ = first.split(b" ")
    lines.add_target(target)
    lines.fields = [(name, value.strip()) for name, _, value in (x.partition(b":") for x in rest)]
    headers, peer = lines.headers(HttpVersion11), cast("Any", None)
    made = PlainRequest(
        peer,
        method.decode(),
        target.decode(),
        headers,
        HttpVersion11,
        keep_alive=keep_alive,
        content=NO_BODY,
    )
    return lines, made


def repeated(head: bytes, data: bytes = b"", *, keep_alive: bool = True) -> RepeatedHead | None:
    """What is kept of a head that the parser has found in some bytes."""
    lines, made = parse(head, keep_alive=keep_alive)
    return RepeatedHead.of(data or head, lines, made, handler, NUMBERS)


def kept() -> RepeatedHead:
    found = repeated(HEAD)
    assert found is not None
    return found


def test_the_same_head_has_the_same_fields_without_parsing() -> None:
    head = kept()
    found = head.read(HEAD + b"Content-Length: 99\r\n\r\n")
    assert found is not None
    assert found[0] == len(HEAD)
    assert dict(found[1]) == {
        "Host": "x", "Authorization": "Bearer a.b", "Number": "7", "Left-Ms": "250",
        "Content-Length": "12",
    }  # fmt: skip
    assert (head.method, head.path) == ("POST", "/plain?a=1")


@pytest.mark.parametrize(
    ("left", "length"), [(b"9", b"0"), (b"000123", b"999999999999"), (b"1", b"07")]
)
def test_other_numbers_are_read_from_the_head(left: bytes, length: bytes) -> None:
    other = HEAD.replace(b"250", left).replace(b": 12", b": " + length)
    head = kept()
    found, same = head.read(other + b"body"), head.read(HEAD)
    assert found is not None
    assert found[0] == len(other)
    assert found[1]["left-ms"] == left.decode()
    assert found[1]["content-length"] == length.decode()
    assert found[1]["number"] == "7"
    assert same is not None
    assert same[1]["content-length"] == "12"


ANOTHER = {
    "an empty one": b"",
    "its beginning": HEAD[:-1],
    "a line feed first": b"\n" + HEAD,
    "an empty line first": b"\r\n" + HEAD,
    "another path": HEAD.replace(b"a=1", b"a=2"),
    "another method": HEAD.replace(b"POST", b"PUT "),
    "another lease": HEAD.replace(b"a.b", b"a.c"),
    "a number that means something": HEAD.replace(b"Number: 7", b"Number: 8"),
    "another case": HEAD.replace(b"Content-L", b"content-l"),
    "a field more": HEAD.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "a field more between": HEAD.replace(b"Content", b"Connection: close\r\nContent"),
    "a field less": HEAD.replace(b"Number: 7\r\n", b""),
    "no digits": HEAD.replace(b": 12", b": "),
    "no value": HEAD.replace(b": 12", b":"),
    "a sign": HEAD.replace(b": 12", b": +12"),
    "a minus": HEAD.replace(b": 12", b": -12"),
    "a point": HEAD.replace(b"250", b"25.0"),
    "hexadecimal": HEAD.replace(b": 12", b": 0x12"),
    "an underscore": HEAD.replace(b": 12", b": 1_2"),
    "a list": HEAD.replace(b": 12", b": 12, 12"),
    "a space after": HEAD.replace(b": 12", b": 12 "),
    "a space before": HEAD.replace(b": 12", b":  12"),
    "a line feed alone": HEAD.replace(b": 12\r\n", b": 12\n\n"),
    "a line feed after the digits": HEAD.replace(b": 12\r\n", b": 12\n\r\n"),
    "a carriage return alone": HEAD.replace(b": 12\r\n", b": 12\r\r\n"),
    "other digits than ASCII's": HEAD.replace(b": 12", ": \u0661\u0662".encode()),
    "superscripts of latin-1": HEAD.replace(b": 12", b": \xb2"),
    "a NUL": HEAD.replace(b": 12", b": 12\0"),
    "too many digits": HEAD.replace(b": 12", b": " + b"0" * 12 + b"1"),
    "more than 64 bits": HEAD.replace(b": 12", b": 18446744073709551628"),
}


@pytest.mark.parametrize("name", ANOTHER)
def test_what_differs_in_anything_else_is_another_head(name: str) -> None:
    assert ANOTHER[name] != HEAD
    assert kept().read(ANOTHER[name]) is None


def test_what_could_mean_something_else_another_time_is_not_kept() -> None:
    def head(*fields: bytes, first: bytes = b"POST /plain HTTP/1.1") -> bytes:
        return b"\r\n".join((first, b"Host: x", *fields, b"", b""))

    assert repeated(head()) is not None
    assert repeated(head(b"Connection: Keep-Alive")) is not None
    for each in (
        head(b"Transfer-Encoding: chunked"),
        head(b"Upgrade: h2c"),
        head(b"Expect: 100-continue"),
        head(b"Connection: upgrade"),
        head(b"Connection: close"),
        head(b"X: " + b"y" * 2048),
    ):
        assert repeated(each) is None, each
    assert repeated(head(), keep_alive=False) is None
    # The parser has found less or more in these bytes than there is in the lines of the head.
    for data in (
        b"\r\n" + head(),
        head(b"X: y"),
        head(b"X: y\nZ: z"),
        head(first=b"POST /other HTTP/1.1"),
        head(first=b"POST /plain HTTP/1.0"),
        head(first=b"POST  /plain HTTP/1.1"),
        head().replace(b"Host", b"host"),
        head().replace(b": x", b": y"),
        head().replace(b"\r\n", b"\n"),
        head()[:-2],
    ):
        assert repeated(head(), data) is None, data


def test_a_connection_whose_heads_always_differ_soon_keeps_no_more() -> None:
    heads = RepeatedHeads(NUMBERS)

    def add(number: int) -> bytes:
        head = HEAD.replace(b"a=1", b"a=%d" % number)
        heads.add(head, *parse(head), handler)
        return head

    tried = [add(number) for number in range(3)]
    assert [heads.find(each) is not None for each in tried] == [False, True, True]
    tried += [add(number) for number in range(3, 30)]
    assert [number for number, each in enumerate(tried) if heads.find(each)] == [5, 6]
    heads.stop()
    assert not any(heads.find(each) for each in tried)
    assert heads.find(add(1)) is None


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each head that went through the parser."""
    found: list[int] = []
    original = HttpConnection.on_headers_complete

    def count(self: HttpConnection) -> None:
        found.append(1)
        original(self)

    monkeypatch.setattr(HttpConnection, "on_headers_complete", count)
    return found


def post(path: str, size: int, *fields: str) -> tuple[bytes, bytes]:
    """A request, and its answer."""
    body = bytes(size % 256 for _ in range(size))
    lines = (f"POST {path} HTTP/1.1", "Host: x", *fields, f"Content-Length: {size}", "", "")
    return "\r\n".join(lines).encode() + body, f"{path} {size} {zlib.crc32(body)}".encode()


async def test_bodies_of_all_sizes_follow_a_head_that_is_parsed_once(
    echo: Echo, parsed: list[int]
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        for size in (20_000, 1, 0, 700, 300_000, 20_000, 2_000_000, 5):
            whole, wanted = post("/plain", size)
            writer.write(whole)
            assert (await read_answer(reader))[2] == wanted
        assert len(parsed) == 1
        for _ in range(3):
            writer.write(b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await read_answer(reader))[2] == b"now"
        assert len(parsed) == 2
        whole, wanted = post("/aiohttp", 7)
        for number in range(2):  # what the application answers is parsed each time
            writer.write(whole)
            assert (await read_answer(reader))[2] == wanted
            assert len(parsed) == 3 + number


async def test_a_body_may_come_later_than_its_head_and_a_pipeline_is_parsed(
    echo: Echo, parsed: list[int]
) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        first, wanted = post("/plain", 40)
        writer.write(first)
        assert (await read_answer(reader))[2] == wanted
        whole, wanted = post("/plain", 100_000)
        for cut in (len(whole) - 100_000, len(whole) - 99_999, 90_000):
            writer.write(whole[:cut])
            await until(echo.busy)
            assert len(parsed) == 1
            writer.write(whole[cut:])
            assert (await read_answer(reader))[2] == wanted
        assert len(parsed) == 1
        # Two at once, the second one behind a body whose beginning came before.
        writer.write(whole[:90_000])
        await until(echo.busy)
        writer.write(whole[90_000:] + first)
        for size in (100_000, 40):
            assert (await read_answer(reader))[2] == post("/plain", size)[1]
        before = len(parsed)
        writer.write(first + first + whole)
        for size in (40, 40, 100_000):
            assert (await read_answer(reader))[2] == post("/plain", size)[1]
        assert len(parsed) > before
        writer.write(whole[:50])  # half a head, which looks like the beginning of a known one
        await asyncio.sleep(0)
        writer.write(whole[50:])
        assert (await read_answer(reader))[2] == wanted


@pytest.mark.parametrize(
    "last",
    [
        post("/plain", 40, "Connection: close")[0],
        b"GET /plain HTTP/1.0\r\nHost: x\r\n\r\n",
    ],
)
async def test_nothing_follows_a_request_that_closes(last: bytes, echo: Echo) -> None:
    first, wanted = post("/plain", 40)
    async with raw_connection(echo.port) as (reader, writer):
        for _ in range(2):
            writer.write(first)
            assert (await read_answer(reader))[2] == wanted
        writer.write(last)
        writer.write(first)
        await read_answer(reader)
        assert await is_closed(reader)
    assert len(echo.seen) == 3


async def test_a_client_that_leaves_in_such_a_body_ends_its_request(echo: Echo) -> None:
    async with raw_connection(echo.port) as (reader, writer):
        whole, wanted = post("/plain", 50_000)
        writer.write(whole)
        assert (await read_answer(reader))[2] == wanted
        writer.write(whole[:-1])
        await until(echo.busy)
    await until(lambda: not echo.busy())
    assert len(echo.seen) == 1


async def test_a_fault_in_an_answer_that_was_known_is_answered(
    echo: Echo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ask = b"GET /now HTTP/1.1\r\nHost: x\r\n\r\n"
    answers: list[bytes | None] = [b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnow"] * 2

    def known(_: PlainRequest) -> bytes | None:
        return answers.pop()

    server: Any = echo.runner.server
    object.__setattr__(server.context, "known", known)
    async with raw_connection(echo.port) as (reader, writer):
        for _ in range(2):
            writer.write(ask)
            assert (await read_answer(reader))[2] == b"now"
        answers += [None, None]  # it is asked again, by the parser's way, and then the application
        writer.write(ask)
        assert (await read_answer(reader))[2].startswith(b"/now 0 ")
        writer.write(ask)
        assert (await read_answer(reader))[0] == 500
        assert await is_closed(reader)
    assert "a request from 127.0.0.1 failed" in caplog.text


@given(part=requests(), times=st.integers(2, 4), other=requests())
@example(
    part=b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    times=3,
    other=b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\nGET /c HTTP/1.0\r\n\r\n",
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_no_request_is_seen_that_aiohttp_does_not_see(
    part: bytes, times: int, other: bytes, echo: Echo
) -> None:
    known = b"POST /plain HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
    parts = [known % (2, b"ab"), known % (0, b""), *[part] * times, known % (4, b"abcd"), other]
    echo.seen.clear()
    async with raw_connection(echo.port) as (reader, writer):
        answered = True
        for each in parts:
            count = len(echo.seen)
            writer.write(each)
            if answered:
                try:
                    async with asyncio.timeout(0.05):  # it may wait for the rest of a body
                        await until(lambda count=count: len(echo.seen) > count, every_s=0.001)
                except TimeoutError:
                    answered = False
        writer.write_eof()
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(0.1):
                await reader.read()
    theirs = iter(read_by_aiohttp(b"".join(parts)))
    assert all(each in theirs for each in echo.seen)  # in the same order; some have no handler
