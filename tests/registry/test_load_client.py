"""The client for `GET /load`, against servers that answer whatever they like."""

from __future__ import annotations

import asyncio
import time

import pytest
from tests.support.load_answers import REFUSED, REPORT, answer, serving
from tests.support.ports import free_port

from fingerpost.errors import BadAnswer, ConnectionRefused, PeerError, Unreachable
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.load import decode_load_report, read_load_answer
from fingerpost.registry.load_client import LoadClient

REPORT_JSON = answer().partition(b"\r\n\r\n")[2]


@pytest.fixture
async def client():
    async with LoadClient(timeout_s=5.0, max_concurrent=16, keep_alive_s=15.0) as client:
        yield client


def at(port: int, host: str = "127.0.0.1") -> Instance:
    return Instance(
        id=f"flowers-{port}",
        service="flowers",
        host=host,
        ports={"http": port},
        models=(ModelInfo(name="flowers", versions=("1",)),),
    )


async def test_a_report(client):
    async with serving(answer()) as (instance, requests):
        assert await client.get(instance) == REPORT
    assert requests[0].startswith(b"GET /load HTTP/1.1\r\n")


@pytest.mark.parametrize("reply", REFUSED.values(), ids=REFUSED)
async def test_an_answer_that_is_refused(client, reply):
    async with serving(reply) as (instance, requests):
        with pytest.raises(BadAnswer, match=instance.address) as caught:
            await client.get(instance)
        assert caught.value.retryable
        assert caught.value.fault == "peer"
        assert len(requests) == 1, "nothing was followed or asked again"


async def test_cookies_are_not_kept(client):
    reply = answer(REPORT_JSON, "200 OK", "Set-Cookie: a=b; Path=/")
    async with serving(reply) as (instance, requests):
        for _ in range(3):
            assert await client.get(instance) == REPORT
    assert len(requests) == 3
    assert not [each for each in requests if b"cookie" in each.lower()]


async def test_no_compression_is_asked_for(client):
    async with serving(answer()) as (instance, requests):
        await client.get(instance)
    assert b"accept-encoding: identity" in requests[0].lower()


async def test_a_probe_says_when_it_was_sent(client):
    before = time.time()
    async with serving(answer()) as (instance, requests):
        await client.get(instance)
    (line,) = (
        each for each in requests[0].splitlines() if each.startswith(b"Fingerpost-Probe-Time")
    )
    assert before - 0.001 <= float(line.split()[1]) <= time.time()


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n{"],
    ids=["no byte", "a body that stops"],
)
async def test_a_slow_worker_is_given_up(reply):
    async with (
        serving(reply) as (instance, _),
        LoadClient(timeout_s=0.1, max_concurrent=1) as client,
    ):
        started = time.monotonic()
        with pytest.raises(Unreachable, match=r"no answer within 0\.1 s"):
            await client.get(instance)
        assert time.monotonic() - started < 5


async def test_a_worker_that_sends_a_byte_now_and_then_is_given_up():
    async def trickle(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        serving(trickle) as (instance, _),
        LoadClient(timeout_s=0.2, max_concurrent=1) as client,
    ):
        with pytest.raises(Unreachable, match="no answer within"):
            await client.get(instance)


async def test_a_status_of_500_or_more_is_a_worker_in_trouble(client):
    async with serving(answer(b"", "503 Service Unavailable")) as (instance, _):
        with pytest.raises(PeerError, match="HTTP 503") as caught:
            await client.get(instance)
    assert not isinstance(caught.value, BadAnswer | Unreachable)


async def test_a_refused_connection_is_told_apart(client):
    with pytest.raises(ConnectionRefused):
        await client.get(at(free_port()))


async def test_a_name_that_does_not_resolve(client):
    with pytest.raises(Unreachable) as caught:
        await client.get(at(1, host="nobody.invalid"))
    assert not isinstance(caught.value, ConnectionRefused)


async def test_a_connection_that_breaks(client):
    async def cut(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 150\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()

    async with serving(cut) as (instance, _):
        with pytest.raises(Unreachable):
            await client.get(instance)


async def test_the_environments_proxy_is_not_used(client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with serving(answer()) as (instance, _):
        assert await client.get(instance) == REPORT


async def test_connections_are_kept_only_where_that_is_wanted():
    for keep_alive_s, closed in ((15.0, False), (0.0, True)):
        async with (
            serving(answer()) as (instance, requests),
            LoadClient(timeout_s=5.0, max_concurrent=1, keep_alive_s=keep_alive_s) as client,
        ):
            await client.get(instance)
            assert (b"connection: close" in requests[0].lower()) is closed


@pytest.mark.parametrize("encoding", ["", "identity", "Identity"])
def test_an_encoding_that_changes_nothing_is_accepted(encoding):
    assert read_load_answer(200, encoding, REPORT_JSON, "peer") == REPORT


def test_the_decoder_names_the_peer():
    with pytest.raises(BadAnswer, match=r"10\.0\.0\.7:8501/load: not a valid load report"):
        decode_load_report(b"{}", "10.0.0.7:8501")
