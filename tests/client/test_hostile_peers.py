"""Workers and proxies that answer whatever an attacker likes: an error of theirs alone."""

from __future__ import annotations

import asyncio
import time

import msgspec
import psutil
import pytest
from aiohttp import web
from tests.support.hostile import ENDLESS, FIXED, reply, serving_hostile

from fingerpost.client import Client, ClientConfig, RetryConfig, RoutingConfig
from fingerpost.client.wire import INDEX_HEADER, ResolveAnswer, ResolvedInstance
from fingerpost.errors import BadAnswer, PeerError, RegistryUnreachable
from fingerpost.registry import Instance, ModelInfo
from fingerpost.registry.address_policy import RejectionReason
from fingerpost.registry.config import RegistryConfig

MB = 1_000_000
# What the kernel holds of a connection on this machine, twice.
IN_KERNEL = 16 * MB

ALL = {**{name: (first, b"") for name, first in FIXED.items()}, **ENDLESS}
# These are typed errors of the protocol, which their worker may send.
TYPED = {"an error without an end": "no_such_code", "Retry-After of 400 digits": "overloaded"}

# With a handful of images the usual budget lets one be retried in a second.
RETRIES = RoutingConfig(retries=RetryConfig(budget_min_per_s=100.0, budget_bytes_share=10.0))


def at(port: int, name: str = "hostile", host: str = "127.0.0.1") -> Instance:
    return Instance(
        id=name,
        service="digits",
        host=host,
        ports={"http": port},
        models=(ModelInfo(name="digits", versions=("1",)),),
    )


def rss() -> int:
    return int(psutil.Process().memory_info().rss)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
async def test_a_hostile_worker_beside_a_good_one(cluster, name):
    good = await cluster.worker("good")
    proxy = await cluster.proxy(good)
    async with serving_hostile(*ALL[name]) as hostile:
        proxy.instances.append(at(hostile.port))
        client = cluster.client_of(proxy, response_timeout_s=1.0, routing=RETRIES)
        before = rss()
        results = [each async for each in client.stream([b"x" * 100] * 12, "digits", concurrency=8)]
        assert [each.error for each in results if each.error is not None] == []
        assert len(results) == 12
        assert {each.worker for each in results} == {"good"}
        assert len(hostile.requests) > 0, "the hostile worker was tried"
        assert hostile.most_bytes < IN_KERNEL
        assert rss() - before < 64 * MB
        await client.aclose()


@pytest.mark.parametrize("name", sorted(FIXED.keys() - TYPED.keys()))
async def test_a_bad_answer_is_that_workers_and_may_be_retried(cluster, name):
    proxy = await cluster.proxy()
    async with serving_hostile(FIXED[name]) as hostile:
        proxy.instances.append(at(hostile.port))
        client = cluster.client_of(proxy, response_timeout_s=0.5, routing=RETRIES)
        with pytest.raises(PeerError) as caught:
            await client.classify(b"x", "digits", timeout_s=1.0)
        errors = [caught.value, caught.value.__cause__]
        bad = next(each for each in errors if isinstance(each, BadAnswer))
        assert hostile.address in bad.message
        assert bad.retryable
        await client.aclose()


async def test_an_answer_that_comes_a_byte_now_and_then_is_not_progress(cluster):
    good = await cluster.worker("good")
    proxy = await cluster.proxy(good)

    async def trickle(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        proxy.instances.insert(0, at(server.sockets[0].getsockname()[1], "a"))
        client = cluster.client_of(proxy, response_timeout_s=0.3, routing=RETRIES)
        started = time.monotonic()
        results = [each async for each in client.stream([b"x"] * 8, "digits", timeout_s=20.0)]
        assert [each.worker for each in results] == ["good"] * 8
        assert time.monotonic() - started < 5
        await client.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
async def test_a_hostile_proxy_before_a_good_one(cluster, name):
    proxy = await cluster.proxy(await cluster.worker("good"))
    async with serving_hostile(*ALL[name]) as hostile:
        before = rss()
        client = Client(f"http://{hostile.address}", proxy.url)
        cluster.clients.append(client)
        assert (await client.classify(b"x", "digits")).worker == "good"
        assert await client.services() == ("digits",)
        assert len(hostile.requests) >= 2
        assert hostile.most_bytes < 40 * MB + IN_KERNEL
        assert rss() - before < 100 * MB
        await client.aclose()


@pytest.mark.parametrize("name", [*FIXED, "header fields", "newlines", "a body"])
async def test_a_hostile_proxy_alone(name, cluster):
    async with serving_hostile(*ALL[name]) as hostile:
        client = Client(f"http://{hostile.address}", config=ClientConfig(wait_for_ready_s=0.2))
        cluster.clients.append(client)
        with pytest.raises(RegistryUnreachable, match=hostile.address):
            await client.services()
        with pytest.raises(PeerError):
            await client.classify(b"x", "digits", timeout_s=2.0)
        await client.aclose()


def lookup(*instances: object) -> bytes:
    answer = {
        "service": "digits",
        "index": 7,
        "age_s": 0.1,
        "lease_s": 1.0,
        "instances": instances,
    }
    return reply(msgspec.json.encode(answer), "200 OK", f"{INDEX_HEADER}: 7")


REFUSED = {
    "169.254.169.254": RejectionReason.METADATA,
    "metadata.google.internal": RejectionReason.METADATA,
    "169.254.7.7": RejectionReason.LINK_LOCAL,
    "224.0.0.1": RejectionReason.MULTICAST,
    "0.1.2.3": RejectionReason.UNSPECIFIED,
    "::": RejectionReason.MALFORMED,
    "255.255.255.255": RejectionReason.RESERVED,
    "fe80::1": RejectionReason.LINK_LOCAL,
    "::ffff:169.254.169.254": RejectionReason.METADATA,
    "not a host": RejectionReason.MALFORMED,
}


@pytest.mark.parametrize("host", REFUSED)
async def test_an_address_that_a_proxy_may_not_give(cluster, host, caplog):
    good = await cluster.worker("good")
    listed = msgspec.to_builtins(ResolvedInstance.of(good.instance))
    bad = {**listed, "id": "bad", "host": host}
    async with serving_hostile(lookup(bad, listed)) as proxy:
        client = Client(f"http://{proxy.address}")
        cluster.clients.append(client)
        snapshot = await client.resolve("digits")
        assert snapshot.instances == (good.instance,)
        assert (await client.classify(b"x", "digits")).worker == "good"
        assert "instance 'bad' of digits is not used" in caplog.text
        await client.aclose()
    assert client.stats.rejected_entries == {REFUSED[host]: 1}


async def test_only_the_networks_that_are_allowed(cluster):
    good = await cluster.worker("good")
    listed = msgspec.to_builtins(ResolvedInstance.of(good.instance))
    outside = {**listed, "id": "outside", "host": "10.1.2.3"}
    named = {**listed, "id": "named", "host": "worker-1"}
    async with serving_hostile(lookup(outside, named, listed)) as proxy:
        config = RegistryConfig(allow_networks=("127.0.0.0/8",))
        client = Client(f"http://{proxy.address}", registry_config=config)
        cluster.clients.append(client)
        assert (await client.resolve("digits")).instances == (good.instance,)
        assert client.stats.rejected_entries == {
            RejectionReason.OUTSIDE_NETWORKS: 1,
            RejectionReason.HOST_NAME: 1,
        }
        await client.aclose()


BAD_ENTRIES = {
    "a number": b"7",
    "an id alone": b'{"id":"bad"}',
    "invalid UTF-8": b'{"id":"\xff"}',
    "a lone surrogate": b'{"id":"\\ud800"}',
    "a long id": b'{"id":"%b"}' % (b"a" * 10_000),
    "nested": b'{"id":"bad","meta":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a bad load": b'{"load":{"rif":-1},',
}


@pytest.mark.parametrize("entry", BAD_ENTRIES)
async def test_one_bad_instance_does_not_spoil_the_others(cluster, entry):
    good = await cluster.worker("good")
    listed = msgspec.to_builtins(ResolvedInstance.of(good.instance))
    bad = BAD_ENTRIES[entry]
    if bad.endswith(b","):
        bad += msgspec.json.encode(listed)[1:]
    wire = lookup(listed).partition(b"\r\n\r\n")[2]
    wire = wire.replace(b'"instances":[', b'"instances":[%b,' % bad)
    async with serving_hostile(reply(wire, "200 OK", f"{INDEX_HEADER}: 7")) as proxy:
        client = Client(f"http://{proxy.address}", config=ClientConfig(wait_for_ready_s=0.3))
        cluster.clients.append(client)
        if entry in ("invalid UTF-8", "a lone surrogate", "nested"):  # all of it cannot be read
            with pytest.raises(RegistryUnreachable, match=proxy.address):
                await client.resolve("digits")
        else:
            assert (await client.resolve("digits")).instances == (good.instance,)
            assert sum(client.stats.rejected_entries.values()) == 1
        await client.aclose()


@pytest.mark.parametrize(
    "change",
    [
        {"service": "other"},
        {"age_s": -5.0},
        {"age_s": 1e300},
        {"index": -1},
        {"index": 2**80},
        {"instances": {}},
    ],
    ids=str,
)
async def test_a_lookup_answered_with_nonsense(cluster, change):
    good = await cluster.worker("good")
    answer = ResolveAnswer(
        service="digits",
        index=7,
        age_s=0.0,
        lease_s=1.0,
        instances=(ResolvedInstance.of(good.instance),),
    )
    body = msgspec.to_builtins(answer) | change
    wire = msgspec.json.encode({key: value for key, value in body.items() if key != "index"})
    index = str(body["index"]).encode()
    wire = wire[:-1] + b',"index":%b}' % index
    async with serving_hostile(reply(wire, "200 OK", f"{INDEX_HEADER}: 7")) as proxy:
        client = Client(f"http://{proxy.address}", config=ClientConfig(wait_for_ready_s=0.2))
        cluster.clients.append(client)
        with pytest.raises(RegistryUnreachable, match=proxy.address):
            await client.resolve("digits")
        await client.aclose()


async def test_a_host_name_that_resolves_to_where_no_worker_can_be(cluster, monkeypatch):
    """The registry and the proxy see a name; only who connects knows what it resolves to."""
    good = await cluster.worker("good")
    proxy = await cluster.proxy(good)
    proxy.instances.append(at(good.server.port, "named", host="worker-1.example"))
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def rebound(host, port, **options):
        host = "169.254.169.254" if host == "worker-1.example" else host
        return await resolve(host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", rebound)
    client = cluster.client_of(proxy)
    results = [each async for each in client.stream([b"x"] * 20, "digits")]
    assert {each.worker for each in results} == {"good"}
    assert client.stats.stale_addresses > 0
    await client.aclose()


async def test_a_retry_after_without_measure_is_not_believed(cluster):
    worker = await cluster.worker("one")

    async def behave(request: web.Request) -> web.Response:
        body = b'{"error":{"code":"model_failed","message":"no","retryable":false}}'
        return web.Response(status=500, body=body, headers={"Retry-After": "9" * 400})

    worker.behave = behave
    client = await cluster.client(worker)
    results = [each async for each in client.stream([b"x"], "digits")]
    assert results[0].error.retry_after_s is None
