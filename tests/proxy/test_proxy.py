"""A real proxy on a real socket, with the embedded registry and small servers as workers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
from tests.proxy.world import World
from tests.support.old_spellings import Warned, warned
from tests.support.waiting import until

from fingerpost.client.wire import INDEX_HEADER, WORKER_HEADER, ResolveAnswer, ServicesAnswer
from fingerpost.errors import ConfigurationError
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import ModelInfo

__all__ = ["warned"]  # a fixture


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["code"]


async def test_get_root_names_each_worker_in_turn(world: World) -> None:
    for name in ("a", "b", "c"):
        await world.add(name)
    await world.until(3)
    seen = []
    for _ in range(6):
        async with world.http.get("/") as response:
            assert response.content_type == "text/plain"
            seen.append(await response.text())
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+\n", each) for each in seen)
    assert len(set(seen[:3])) == 3
    assert seen[:3] == seen[3:]


async def test_resolve_tells_all_there_is_to_know(world: World) -> None:
    await world.add("a", zone="rack-1", weight=7, meta={"device": "cpu"}, boot_id=5)
    await world.until(1)

    async def with_a_load() -> tuple[ResolveAnswer, str] | None:
        async with world.http.get("/v1/resolve/digits") as response:
            answer = msgspec.json.decode(await response.read(), type=ResolveAnswer)
        loads = [each.load for each in answer.instances]
        return None if loads == [None] else (answer, response.headers[INDEX_HEADER])

    answer, index = await until(with_a_load, within_s=10)
    (one,) = answer.instances
    assert index == str(answer.index)
    assert one.address == f"127.0.0.1:{world.workers['a'].port}"
    assert (one.zone, one.weight, one.meta["device"], one.boot_id) == ("rack-1", 7, "cpu", 5)
    assert one.load.rif == 3
    assert 0 <= answer.age_s < 30
    assert answer.lease_s > 0


async def test_versions_aliases_counts_and_zones(world: World) -> None:
    old = ModelInfo(name="digits", versions=("1",), aliases={"stable": "1"})
    new = ModelInfo(name="digits", versions=("2", "1"), aliases={"canary": "2", "stable": "1"})
    await world.add("a", models=(old,), zone="x")
    await world.add("b", models=(new,), zone="y")
    await world.until(2)
    port = {name: f"127.0.0.1:{worker.port}" for name, worker in world.workers.items()}
    for query, expected in {
        "digits@2": {port["b"]},
        "digits?version=2": {port["b"]},
        "digits?alias=canary": {port["b"]},
        "digits@stable": {port["a"], port["b"]},
        "digits?zone=y&n=1": {port["b"]},
        "digits?zone=x&n=1": {port["a"]},
    }.items():
        assert await world.addresses(f"/v1/resolve/{query}") == expected, query
    async with world.http.get("/v1/services") as response:
        answer = msgspec.json.decode(await response.read(), type=ServicesAnswer)
    (entry,) = answer.services
    assert (entry.name, entry.instances, entry.versions) == ("digits", 2, ("2", "1"))
    assert entry.aliases == {"canary": "2", "stable": "1"}


async def test_the_query_of_release_0_1_0_is_read_and_named_once(
    world: World, warned: Warned
) -> None:
    model = ModelInfo(name="digits", versions=("2", "1"), aliases={"canary": "2"})
    await world.add("a", models=(model,))
    await world.add("b")
    await world.until(2)
    canary = {f"127.0.0.1:{world.workers['a'].port}"}
    for _ in range(2):
        assert await world.addresses("/v1/resolve/digits?label=canary") == canary
    (line,) = warned()
    assert line.startswith("GET /v1/resolve: 'label=' is the old spelling of 'alias='")
    async with world.http.get("/v1/resolve/digits?label=canary&alias=canary") as response:
        assert await error_of(response) == (400, "invalid_request")


BAD = {
    "unknown service": ("GET", "/v1/resolve/flowers", 404, "unknown_service"),
    "unknown service, redirect": ("POST", "/v1/classify/flowers", 404, "unknown_service"),
    "unknown version": ("GET", "/v1/resolve/digits@9", 404, "unknown_model"),
    "bad name": ("GET", "/v1/resolve/..%2fkv", 400, "invalid_name"),
    "two versions": ("GET", "/v1/resolve/digits@1?version=2", 400, "invalid_request"),
    "no version": ("GET", "/v1/resolve/digits?version=canary", 400, "invalid_request"),
    "bad index": ("GET", "/v1/resolve/digits?index=x", 400, "invalid_request"),
    "bad wait": ("GET", "/v1/resolve/digits?index=1&wait=soon", 400, "invalid_request"),
    "bad count": ("GET", "/v1/resolve/digits?n=-1", 400, "invalid_request"),
    "unknown path": ("GET", "/v2/x", 404, "unknown_path"),
    "wrong method": ("DELETE", "/v1/services", 405, "method_not_allowed"),
    "relay off": ("POST", "/v1/relay/digits", 403, "unauthorized"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_requests(world: World, name: str) -> None:
    await world.add("a")
    await world.until(1)
    method, path, status, code = BAD[name]
    from yarl import URL

    url = URL(world.proxy.url + path, encoded=True)
    async with world.http.request(method, url) as response:
        assert await error_of(response) == (status, code)


async def test_no_default_among_several_services(world: World) -> None:
    async with world.http.get("/") as response:
        assert await error_of(response) == (404, "unknown_service")
    await world.add("a")
    await world.add("b", service="flowers")
    await world.until(1)
    await world.until(1, "/v1/resolve/flowers")
    async with world.http.get("/") as response:
        assert await error_of(response) == (400, "invalid_request")


@pytest.mark.parametrize("world", [{"default_service": "digits"}], indirect=True)
async def test_the_default_service_without_a_worker_is_503(world: World) -> None:
    async with world.http.get("/") as response:
        assert await error_of(response) == (503, "no_worker")
        assert response.headers["Retry-After"] == "1"
    await world.add("b", service="flowers")
    registration = await world.add("a")
    await world.until(1)
    async with world.http.get("/") as response:
        assert (await response.text()).strip() in await world.addresses()
    await registration.deregister()
    await world.until(0)
    async with world.http.get("/v1/resolve/digits") as response:
        assert await error_of(response) == (503, "no_worker")
        assert int(response.headers[INDEX_HEADER]) > 0


async def test_a_held_lookup_returns_at_the_change(world: World) -> None:
    await world.add("a")
    await world.until(1)
    async with world.http.get("/v1/resolve/digits") as response:
        index = response.headers[INDEX_HEADER]
    started = time.monotonic()
    path = f"/v1/resolve/digits?index={index}&wait=200ms"
    async with world.http.get(path) as response:
        assert response.headers[INDEX_HEADER] == index
    assert 0.15 < time.monotonic() - started < 5
    held = asyncio.create_task(world.addresses(f"/v1/resolve/digits?index={index}&wait=30s"))
    await until(lambda: world.measured("waiting_lookups 1.0"), within_s=5)
    await world.add("b")
    assert len(await asyncio.wait_for(held, 2)) == 2


@pytest.mark.parametrize("world", [{"max_blocking_queries": 0}], indirect=True)
async def test_too_many_held_lookups_are_refused(world: World) -> None:
    await world.add("a")
    await world.until(1)
    async with world.http.get("/v1/resolve/digits?index=1") as response:
        assert await error_of(response) == (429, "overloaded")


async def test_a_lookup_held_for_an_unknown_service_learns_of_it(world: World) -> None:
    await world.add("a")
    await world.until(1)
    async with world.http.get("/v1/resolve/flowers") as response:
        assert response.status == 404
        index = response.headers[INDEX_HEADER]
    held = asyncio.create_task(world.addresses(f"/v1/resolve/flowers?index={index}&wait=30s"))
    await until(lambda: world.measured("waiting_lookups 1.0"), within_s=5)
    await world.add("b", service="flowers")
    assert len(await asyncio.wait_for(held, 5)) == 1


async def test_the_redirect_comes_before_the_body(world: World) -> None:
    await world.add("a")
    await world.until(1)
    port = int(world.proxy.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST /v1/classify/digits?top=2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        b"Expect: 100-continue\r\n\r\n"
    )
    answer = await asyncio.wait_for(reader.read(), 5)  # to the end: the proxy closes
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 307")
    location = f"Location: http://127.0.0.1:{world.workers['a'].port}/v1/classify/digits?top=2"
    assert location.encode() in answer
    assert b"100 Continue" not in answer
    assert (
        "fingerpost_proxy_body_bytes_total 0.0" in await (await world.http.get("/metrics")).text()
    )


@pytest.mark.parametrize("world", [{"relay": True}], indirect=True)
@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/v1/resolve/digits?lable=canary", "it takes version, alias, n, zone, index, wait"),
        ("GET", "/v1/services?service=digits", "it takes none"),
        ("GET", "/?version=3", "it takes none"),
        ("POST", "/v1/classify/digits?version=3", "it takes top"),
        ("POST", "/v1/relay/digits?alias=canary", "it takes top"),
    ],
)
async def test_unknown_parameters_are_named(
    world: World, method: str, path: str, known: str
) -> None:
    await world.add("a")
    await world.until(1)
    async with world.http.request(method, path, allow_redirects=False) as answer:
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert error["code"] == "invalid_request"
    assert error["message"].endswith(known)


@pytest.mark.parametrize("world", [{"relay": True}], indirect=True)
@pytest.mark.parametrize("path", ["/v1/relay/digits", "/v1/classify/digits"])
async def test_web_pages_may_not_send_images(world: World, path: str) -> None:
    await world.add("a")
    await world.until(1)
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "http://evil.example:12480", "Host": "evil.example:12480"},  # DNS rebinding
        {"Sec-Fetch-Site": "cross-site"},
    ):
        async with world.http.post(
            path, data=b"image", headers=headers, allow_redirects=False
        ) as answer:
            assert answer.status == 403
            assert "of another origin" in (await answer.json())["error"]["message"]
    assert world.workers["a"].paths == []
    # A program, by whatever name it knows the proxy.
    headers = {"Host": "proxy.cluster.internal"}
    async with world.http.post(
        path, data=b"image", headers=headers, allow_redirects=False
    ) as answer:
        assert answer.status in (201, 307)


@pytest.mark.parametrize("world", [{"relay": True}], indirect=True)
async def test_the_relay_carries_and_counts(world: World) -> None:
    await world.add("a")
    await world.until(1)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield bytes(10_000)

    async with world.http.post("/v1/relay/digits@1?top=1", data=pieces()) as response:
        assert response.status == 201
        assert await response.json() == {"worker": world.workers["a"].port}
        assert response.headers[WORKER_HEADER] == f"a 127.0.0.1:{world.workers['a'].port}"
    assert world.workers["a"].body_bytes == 500_000
    assert world.workers["a"].paths == ["/v1/classify/digits@1?top=1"]
    metrics = await (await world.http.get("/metrics")).text()
    assert "fingerpost_proxy_relayed_bytes_total 500000.0" in metrics
    assert 'fingerpost_proxy_relayed_requests_total{status="201"} 1.0' in metrics


@pytest.mark.parametrize("world", [{"relay": True}], indirect=True)
async def test_the_relay_goes_on_to_a_worker_that_accepts(world: World) -> None:
    for name in ("a", "b"):
        await world.add(name)
    await world.until(2)
    await world.workers["a"].stop()
    for _ in range(4):
        async with world.http.post("/v1/relay/digits", data=b"x" * 100) as response:
            assert (await response.json())["worker"] == world.workers["b"].port


async def test_a_worker_that_refuses_connections_is_not_handed_out(world: World) -> None:
    await world.add("a")
    await world.add("b")
    await world.until(2)
    dead = f"127.0.0.1:{world.workers['a'].port}"
    await world.workers["a"].stop()
    async with asyncio.timeout(5):
        quiet = 0
        while quiet < 10:
            async with world.http.get("/") as response:
                quiet = 0 if (await response.text()).strip() == dead else quiet + 1


async def test_an_outage_keeps_the_last_good_snapshot_and_shows_its_age(world: World) -> None:
    await world.add("a")
    await world.until(1)
    await world.embedded.aclose()

    async def noticed() -> bool:
        async with world.http.get("/health/ready") as response:
            return "registry" in await response.json()

    await until(noticed, within_s=15)
    async with world.http.get("/health/ready") as response:
        assert response.status == 200
    async with world.http.get("/v1/resolve/digits") as response:
        first = msgspec.json.decode(await response.read(), type=ResolveAnswer)
    assert len(first.instances) == 1
    assert first.age_s > 0

    async def older() -> bool:
        async with world.http.get("/v1/resolve/digits") as response:
            again = msgspec.json.decode(await response.read(), type=ResolveAnswer)
        return again.age_s > first.age_s

    await until(older, within_s=5)


@pytest.mark.parametrize("old", ["service", "first_snapshot_s", "max_waiting"])
def test_an_old_name_of_a_setting_is_an_error_that_names_the_new_one(old: str) -> None:
    old_setting: dict[str, Any] = {old: 1}
    with pytest.raises(ConfigurationError, match=f"{old}=.* is called [a-z_]+ now"):
        ProxyConfig(registry="http://127.0.0.1:9", **old_setting)


async def test_before_the_first_snapshot() -> None:
    config = ProxyConfig(registry="http://127.0.0.1:9", port=0, first_snapshot_timeout_s=0.1)
    async with Proxy(config) as proxy, aiohttp.ClientSession(proxy.url) as http:
        async with http.get("/health/live") as response:
            assert response.status == 200
        async with http.get("/health/ready") as response:
            assert response.status == 503
        for path in ("/", "/v1/resolve/digits", "/v1/services"):
            async with http.get(path) as response:
                assert await error_of(response) == (503, "registry_unreachable")
        with pytest.raises(ConfigurationError, match=r"in use.*another port"):
            async with Proxy(ProxyConfig(registry="http://127.0.0.1:9", port=proxy.port)):
                pass


async def test_hostile_registrations_are_counted_and_never_handed_out(world: World) -> None:
    await world.add("a")
    await world.until(1)
    entry = {
        "Name": "digits",
        "ID": "metadata",
        "Address": "169.254.169.254",
        "Port": 80,
        "Tags": ["fingerpost"],
    }
    async with world.http.put(f"{world.embedded.url}/v1/agent/service/register", json=entry) as put:
        assert put.status == 200
    await until(lambda: world.measured('fingerpost_proxy_rejected_entries_total{reason="'))
    assert await world.addresses() == {f"127.0.0.1:{world.workers['a'].port}"}


async def test_not_modified(world: World) -> None:
    await world.add("a")
    await world.until(1)
    async with world.http.get("/v1/resolve/digits") as response:
        tag = response.headers["ETag"]
    headers = {"If-None-Match": tag}
    async with world.http.get("/v1/resolve/digits", headers=headers) as response:
        assert response.status == 304
        assert await response.read() == b""
    await world.add("b")
    await world.until(2)
    async with world.http.get("/v1/resolve/digits", headers=headers) as response:
        assert response.status == 200
