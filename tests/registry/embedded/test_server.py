"""The embedded registry as a server: where it listens, how it stops, how many may wait."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError
from fingerpost.registry.embedded import EmbeddedRegistry, server
from fingerpost.registry.http.app import bind, serve


async def test_a_port_in_use_is_named(embedded):
    other = EmbeddedRegistry(port=embedded.port)
    with pytest.raises(ConfigurationError, match=f"127.0.0.1:{embedded.port}"):
        await other.start()
    await other.aclose()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example", ""])  # noqa: S104
def test_only_loopback_addresses_are_taken_unless_allowed(host):
    with pytest.raises(ConfigurationError, match="access control"):
        EmbeddedRegistry(host)
    EmbeddedRegistry(host, allow_remote=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.7", "::1", "localhost"])
def test_loopback_addresses(host):
    EmbeddedRegistry(host)


async def test_stopping_answers_those_who_wait(raw, embedded):
    url = f"{embedded.url}/v1/catalog/services?index=1&wait=10m"
    waiting = [asyncio.create_task(raw.get(url)) for _ in range(5)]
    await until(lambda: embedded._waiting == 5)
    started = time.monotonic()
    await embedded.aclose()
    assert time.monotonic() - started < 2
    for answer in await asyncio.gather(*waiting):
        assert answer.status == 200
        answer.release()


async def test_a_watcher_that_went_away_is_not_waited_for(raw, embedded):
    url = f"{embedded.url}/v1/catalog/services?index=1&wait=10m"
    waiting = asyncio.create_task(raw.get(url))
    await until(lambda: embedded._waiting == 1)
    waiting.cancel()
    await until(lambda: embedded._waiting == 0)


async def test_the_number_of_waiting_queries_is_bounded(raw, embedded, monkeypatch):
    monkeypatch.setattr(server, "MAX_WAITING", 2)
    url = f"{embedded.url}/v1/catalog/services?index=1&wait=10m"
    waiting = [asyncio.create_task(raw.get(url)) for _ in range(2)]
    await until(lambda: embedded._waiting == 2)
    async with raw.get(url) as answer:
        assert answer.status == 429
    async with raw.get(f"{embedded.url}/v1/catalog/services") as answer:
        assert answer.status == 200, "one that does not wait is answered all the same"
    await embedded.aclose()
    for answer in await asyncio.gather(*waiting):
        answer.release()


async def test_a_blocking_query_ends_by_itself_with_the_same_index(raw, embedded):
    started = time.monotonic()
    url = f"{embedded.url}/v1/health/service/nobody?index=1&wait=100ms"
    async with raw.get(url) as answer:
        assert answer.headers["X-Consul-Index"] == "1"
    assert 0.1 <= time.monotonic() - started < 2


async def test_time_alone_turns_a_ttl_check_critical(raw, embedded):
    check = {"TTL": "100ms", "Status": "passing"}
    body = {"Name": "a", "Check": check}
    async with raw.put(f"{embedded.url}/v1/agent/service/register", json=body) as answer:
        assert answer.status == 200
    index = answer.headers.get("X-Consul-Index", "2")
    async with raw.get(f"{embedded.url}/v1/health/service/a?index={index}&wait=10s") as answer:
        (entry,) = await answer.json()
    assert entry["Checks"][1]["Status"] == "critical"


@pytest.mark.parametrize(
    ("status", "wanted"), [(200, "passing"), (204, "passing"), (429, "warning"), (503, "critical")]
)
async def test_what_an_http_check_makes_of_a_status(embedded, raw, status, wanted):
    async def handle(_):
        return web.Response(status=status)

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await serve(runner, bind("127.0.0.1", 0))
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    first = "critical" if wanted == "passing" else "passing"
    check = {"HTTP": url, "Interval": "1s", "Status": first}
    body = {"Name": "a", "Check": check}
    async with raw.put(f"{embedded.url}/v1/agent/service/register", json=body):
        pass

    async def is_so():
        async with raw.get(f"{embedded.url}/v1/health/checks/a") as answer:
            return [each["Status"] for each in await answer.json()] == [wanted]

    await until(is_so, within_s=4)
    await runner.cleanup()


async def test_a_body_that_is_too_large_is_refused(raw, embedded):
    async with raw.put(f"{embedded.url}/v1/agent/service/register", data=b" " * 300_000) as answer:
        assert answer.status == 413


async def test_it_starts_empty_again(raw):
    embedded = EmbeddedRegistry(port=0)
    for _ in range(2):
        async with embedded:
            async with raw.get(f"{embedded.url}/v1/agent/services") as answer:
                assert await answer.json() == {}
            async with raw.put(
                f"{embedded.url}/v1/agent/service/register", json={"Name": "a"}
            ) as answer:
                assert answer.status == 200


PAGES = [
    {"Host": "evil.example:12481"},
    {"Host": "evil.example:12481", "Origin": "http://evil.example:12481"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", PAGES)
async def test_web_pages_can_neither_register_nor_read(raw, embedded, headers, caplog):
    """DNS rebinding: the page's own name points to 127.0.0.1, and stays in `Host`."""
    url = f"{embedded.url}/v1/agent/service/register"
    async with raw.put(url, json={"Name": "flowers", "Port": 1}, headers=headers) as answer:
        assert answer.status == 403
    async with raw.get(f"{embedded.url}/v1/agent/services", headers=headers) as answer:
        assert answer.status == 403
    assert "a request from 127.0.0.1 is refused: " in caplog.text
    async with raw.get(f"{embedded.url}/v1/agent/services") as answer:
        assert await answer.json() == {}


async def test_names_may_be_allowed(raw):
    async with EmbeddedRegistry(port=0, allow_hosts=["registry.lab"]) as registry:
        for host, status in (
            ("registry.lab:1", 200),
            ("REGISTRY.LAB", 200),
            ("localhost", 200),
            ("192.0.2.1:8500", 200),
            ("other.lab", 403),
        ):
            url = f"{registry.url}/v1/agent/services"
            async with raw.get(url, headers={"Host": host}) as answer:
                assert answer.status == status, host
