"""Several registries as one: two embedded ones, of which each can fail."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import ConfigurationError, InvalidRequest, RegistryError
from fingerpost.registry import ConsulRegistry, RegistryConfig, WatchConfig, open_registry
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.registry.several.registry import SeveralRegistries
from fingerpost.registry.watching.snapshot_store import SnapshotStore


@pytest.fixture
async def servers():
    made = [EmbeddedRegistry(port=0), EmbeddedRegistry(port=0)]
    for each in made:
        await each.start()
    yield made
    for each in made:
        await each.aclose()


@pytest.fixture
async def several(servers):
    made = []

    def make(**arguments):
        config = WatchConfig(wait_s=10, backoff_cap_s=0.1)
        parts = [
            ConsulRegistry(each.url, watch_config=config, call_timeout_s=1.0) for each in servers
        ]
        made.append(SeveralRegistries(parts, **arguments))
        return made[-1]

    yield make
    for each in made:
        await each.aclose()


async def test_workers_of_both_are_seen_and_each_change(servers, several, connect, worker, service):
    one = await connect(servers[0].url).register(worker.instance(service, "one"))
    registry = several()
    watch = registry.watch(service)
    assert registry.watch(service) is watch
    assert ids(await watch.ready(5)) == [one.instance.id]
    two = await connect(servers[1].url).register(worker.instance(service, "two"))
    await until(lambda: ids(watch.view) == [one.instance.id, two.instance.id], within_s=1)
    assert ids(await registry.list(service)) == [one.instance.id, two.instance.id]
    assert service in (await registry.catalog()).services
    catalog = registry.watch_catalog()
    assert service in (await catalog.ready(5)).services
    await registry.set_draining(two.instance.id, "new disk")
    await until(lambda: ids(watch.view) == [one.instance.id], within_s=1)
    with pytest.raises(InvalidRequest, match="no instance"):
        await registry.set_draining("nobody", "x")
    await registry.release(service)
    await registry.release(service)
    assert not watch.running
    await one.deregister()
    await two.deregister()


async def test_the_outage_of_one_hides_nothing(servers, several, connect, worker, service):
    one = await connect(servers[0].url).register(worker.instance(service, "one"))
    two = await connect(servers[1].url).register(worker.instance(service, "two"))
    registry = several()
    watch = registry.watch(service)
    both = [one.instance.id, two.instance.id]
    await until(lambda: watch.view is not None and ids(watch.view) == both)
    await one.stop()
    await servers[0].aclose()
    await two.drain("leaving")
    await until(lambda: ids(watch.view) == both[:1], within_s=2)
    assert watch.error is None
    with pytest.raises(RegistryError):
        await registry.list(service)  # an error is not an empty list
    await two.undrain()
    assert ids(await registry.list(service)) == both[1:]
    await until(lambda: ids(watch.view) == both, within_s=2)
    await two.stop()
    await servers[1].aclose()
    await until(lambda: watch.error is not None, within_s=15)
    assert ids(watch.view) == both


async def test_one_that_never_answered_delays_the_start_by_a_second_only(
    servers, several, connect, worker, service
):
    registration = await connect(servers[1].url).register(worker.instance(service))
    await servers[0].aclose()
    watch = several().watch(service)
    async with asyncio.timeout(4):
        await until(lambda: watch.view is not None)
    assert ids(watch.view) == [registration.instance.id]
    await registration.deregister()


async def test_in_failover_the_second_is_used_while_the_first_has_none(
    servers, several, connect, worker, service
):
    two = await connect(servers[1].url).register(worker.instance(service, "two"))
    watch = several(mode="failover").watch(service)
    assert ids(await watch.ready(5)) == [two.instance.id]
    one = await connect(servers[0].url).register(worker.instance(service, "one"))
    await until(lambda: ids(watch.view) == [one.instance.id], within_s=1)
    await one.drain("leaving")
    await until(lambda: ids(watch.view) == [two.instance.id], within_s=1)
    await one.deregister()
    await two.deregister()


async def test_the_first_is_where_a_worker_registers(servers, several, worker, service):
    registry = several()
    registration = await registry.register(worker.instance(service))
    assert ids(await registry.list(service)) == [registration.instance.id]
    await registry.publish("lease-keys", b"{}")
    assert await registry.document("lease-keys") == b"{}"
    await servers[1].aclose()
    assert await registry.document("lease-keys") == b"{}"
    with pytest.raises(RegistryError):
        await registry.document("others")
    await registration.deregister()


async def test_a_snapshot_of_all_survives_a_restart(
    servers, several, connect, worker, service, tmp_path
):
    registration = await connect(servers[1].url).register(worker.instance(service))
    first = several(store=SnapshotStore(tmp_path))
    await until(lambda: (first.watch(service).view or None) is not None)
    await first.aclose()
    for each in servers:
        await each.aclose()
    watch = several(store=SnapshotStore(tmp_path)).watch(service)
    await until(lambda: watch.view is not None, within_s=15)
    assert ids(watch.view) == [registration.instance.id]
    assert watch.view.from_disk
    await registration.stop()


async def test_urls_in_one_text_are_several_registries(tmp_path):
    registry = open_registry(
        "consul://127.0.0.1:1 static://10.0.0.7:80",
        RegistryConfig(token="x", allow_networks=("10.0.0.0/8",), registries="failover"),  # noqa: S106
    )
    assert isinstance(registry, SeveralRegistries)
    assert [type(each).__name__ for each in registry._registries] == [
        "ConsulRegistry",
        "StaticRegistry",
    ]
    await registry.aclose()


@pytest.mark.parametrize(
    ("url", "config", "why"),
    [
        ("consul://a consul://a", {}, "given twice"),
        ("consul://a zookeeper://b", {"token": "x"}, "token: which of the registries .* is for"),
        ("consul://a other://b", {}, "expected consul://HOST:PORT"),
        ("consul://a", {"registries": "failover"}, "only with several registries"),
    ],
    ids=["twice", "token", "scheme", "one"],
)
def test_what_is_not_clear_is_refused(url, config, why):
    with pytest.raises(ConfigurationError, match=why):
        open_registry(url, RegistryConfig(**config))


@pytest.mark.parametrize("mode", ["both", ""])
def test_the_mode_is_checked(mode):
    with pytest.raises(ConfigurationError, match="use 'merged' or 'failover'"):
        RegistryConfig(registries=mode)
