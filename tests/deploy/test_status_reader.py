"""What `fingerpost status` reads of a registry and of a proxy, and what it watches of a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from tests.proxy.world import FakeWorker, World, instance
from tests.support.ports import free_port
from tests.support.waiting import until

from fingerpost.client.resolver import ProxyResolver, Resolver
from fingerpost.client.source import Source
from fingerpost.deploy.commands.status import _ClusterReader
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import open_registry
from fingerpost.registry.consul.registry import MAX_WATCHES
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.load_client import LoadClient


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with EmbeddedRegistry(port=0) as embedded:
        registry = open_registry(embedded.url)
        config = ProxyConfig(registry=embedded.url, port=0, forget_after_s=0.3)
        async with Proxy(config) as proxy:
            world = World(embedded, registry, proxy)
            yield world
            await world.http.close()
        await registry.aclose()
    await world.stop_workers()


@pytest.fixture(params=["registry", "proxy"])
async def resolver(request: pytest.FixtureRequest, world: World) -> AsyncIterator[Resolver]:
    proxies = () if request.param == "registry" else (str(world.proxy.url),)
    url = world.embedded.url if request.param == "registry" else None
    resolver = Source.of(proxies, registry=url).resolver(connect_timeout_s=1.0)
    yield resolver
    await resolver.aclose()


@pytest.fixture
async def reader(resolver: Resolver) -> AsyncIterator[_ClusterReader]:
    async with LoadClient(timeout_s=1.0, max_concurrent=10) as loads:
        yield _ClusterReader(resolver, loads)


async def test_why_the_check_of_a_worker_fails(world: World, reader: _ClusterReader) -> None:
    await world.add("good")
    port = free_port()
    await world.registry.register(instance("unreachable", port))

    async def why() -> str:
        return (await reader.read()).unlisted["digits"].failing.get("unreachable", "")

    async def refused() -> bool:
        return "Connection refused" in await why()

    await until(refused, within_s=20)
    assert (await why()).startswith(f"127.0.0.1:{port}: ")
    view = await reader.read()
    (problem,) = view.problems()
    assert problem.startswith(f"digits: the registry's check of unreachable at 127.0.0.1:{port}: ")
    assert "--advertise" in problem
    (service,) = view.as_json()
    assert list(service["failing"]) == ["unreachable"]
    assert [each["id"] for each in service["workers"]] == ["good"]


@pytest.mark.parametrize("id_", ["web 1", "m-\x1b[31m", "a/b", "x" * 5000])
async def test_an_entry_whose_id_is_none_of_ours_hides_nobody(
    world: World, reader: _ClusterReader, id_: str
) -> None:
    await world.add("good")
    entry = {"Name": "legacy", "ID": id_, "Address": "127.0.0.1", "Port": 9001}
    bad = entry | {"Tags": ["fingerpost"], "Meta": {"version": "v2.1"}}
    url = f"{world.embedded.url}/v1/agent/service/register"
    async with aiohttp.ClientSession() as http, http.put(url, json=bad) as answer:
        assert answer.status == 200, await answer.text()

    async def told() -> bool:
        view = await reader.read()
        return any("legacy: the entry" in each for each in view.problems())

    await until(told, within_s=20)
    view = await reader.read()
    services = {each["service"]: each for each in view.as_json()}
    assert [each["id"] for each in services["digits"]["workers"]] == ["good"]


async def test_the_watch_of_a_service_that_is_gone_ends(
    world: World, resolver: Resolver, reader: _ClusterReader
) -> None:
    await world.add("a")
    worker = FakeWorker()
    await worker.start()
    entry = await world.registry.register(instance("b", worker.port, service="flowers"))

    async def known() -> bool:
        view = await reader.read()
        return {each.service for each in view.snapshots if each.instances} == {"digits", "flowers"}

    await until(known, within_s=20)
    watches = resolver._overviewed if isinstance(resolver, ProxyResolver) else {}
    kept, gone = watches.get("digits"), watches.get("flowers")
    await worker.stop()
    await entry.deregister()

    async def forgotten() -> bool:
        return set((await reader.read()).unlisted) == {"digits"}

    await until(forgotten, within_s=20)
    assert gone is None or not gone.running
    assert kept is None or kept.running
    # However often it was read, one release is enough.
    await world.registrations["a"].deregister()
    await world.workers["a"].stop()

    async def empty() -> bool:
        return not (await reader.read()).unlisted

    await until(empty, within_s=20)
    assert kept is None or not kept.running


@pytest.mark.parametrize("resolver", ["registry"], indirect=True)
async def test_a_registry_of_more_services_than_may_be_watched(
    world: World, reader: _ClusterReader
) -> None:
    """A registry allows 100 watches at a time, and `status` needs none."""
    worker = FakeWorker()
    await worker.start()
    names = {f"service-{number}" for number in range(MAX_WATCHES + 5)}
    for name in names:
        await world.registry.register(instance(name, worker.port, service=name))
    view = await reader.read()
    assert {each.service for each in view.snapshots} == names
    assert all(len(each.instances) == 1 for each in view.snapshots)
    await worker.stop()
