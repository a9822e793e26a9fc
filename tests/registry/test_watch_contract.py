"""What the watches of every registry must do; `test_contract` has the rest of the suite."""

from __future__ import annotations

import time

import pytest
from tests.support.snapshots import ids
from tests.support.waiting import until

from fingerpost.errors import RegistryUnreachable
from fingerpost.registry import WatchConfig

# Watching


async def test_a_watch_is_shared(registry, service):
    assert registry.watch(service) is registry.watch(service)
    assert registry.watch_catalog() is registry.watch_catalog()


async def test_an_idle_watch_is_held_by_the_registry(url, connect, worker, service):
    registry = connect(url, watch_config=WatchConfig(wait_s=0.5))
    registration = await registry.register(worker.instance(service))
    started = time.monotonic()
    watch = registry.watch(service)
    await watch.ready(5)
    await until(lambda: watch.polls >= 4)
    # The first poll answers at once; of the others, only one that a change ended may be shorter.
    assert time.monotonic() - started >= 0.95
    assert watch.changes == 1
    await registration.deregister()


async def test_a_watch_sees_each_change_with_few_polls(url, connect, worker, service):
    registry = connect(url)
    watch = registry.watch(service)
    await watch.ready(5)
    for _ in range(3):
        started = time.monotonic()
        worker.leaving = False
        registration = await registry.register(worker.instance(service))
        await until(lambda: watch.view.instances, within_s=1)
        worker.leaving = True  # as a real worker says of itself before it goes
        await registration.deregister()
        await until(lambda: not watch.view.instances, within_s=1)
        assert time.monotonic() - started < 1
    assert watch.polls <= 20
    assert watch.errors == 0


# Outages


async def test_an_outage_keeps_the_view_and_the_registrys_return_brings_all_back(
    restartable, connect, worker, service
):
    url = await restartable.start()
    registry = connect(url, call_timeout_s=1.0)
    registration = await registry.register(worker.instance(service))
    watch = registry.watch(service)
    view = await watch.ready(5)
    assert view.instances == (registration.instance,)

    await restartable.stop()
    started = time.monotonic()
    with pytest.raises(RegistryUnreachable):
        await registry.list(service)
    with pytest.raises(RegistryUnreachable):
        await registry.register(worker.instance(service, "2"))
    assert time.monotonic() - started < 2.5
    await until(lambda: watch.error is not None and watch.errors >= 2)
    assert watch.view.instances == (registration.instance,), "an error is not an empty list"

    await restartable.start()  # with no memory of anything
    returned = time.monotonic()

    async def is_back():
        return ids(await registry.list(service)) == [registration.instance.id]

    await until(is_back, within_s=5)
    await until(lambda: watch.error is None and watch.view.instances, within_s=5)
    assert time.monotonic() - returned < 5
    await registration.deregister()
