"""A fixed list of workers."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.optional import not_none

from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry import ModelReference, WatchConfig
from fingerpost.registry.static import StaticRegistry


def _addresses(snapshot):
    return [instance.address for instance in snapshot.instances]


async def test_every_service_has_all_workers_listed():
    registry = StaticRegistry("static://10.0.0.2:80,gpu-1.example:12490,[fe80::1]:8080")
    for service in ("flowers", "digits"):
        snapshot = await registry.list(service)
        assert snapshot.known
        assert sorted(_addresses(snapshot)) == [
            "10.0.0.2:80",
            "[fe80::1]:8080",
            "gpu-1.example:12490",
        ]
        assert len({instance.id for instance in snapshot.instances}) == 3
        assert snapshot.matching(ModelReference.parse(service)) == snapshot.instances
    assert (await registry.catalog()).services == ()
    await registry.aclose()


async def test_a_model_makes_it_one_service():
    registry = StaticRegistry("static://127.0.0.1:1/?model=flowers@3")
    snapshot = await registry.list("flowers")
    assert snapshot.matching(ModelReference.parse("flowers@3")) == snapshot.instances
    assert snapshot.matching(ModelReference.parse("flowers@4")) == ()
    assert not (await registry.list("digits")).known
    assert (await registry.catalog()).services == ("flowers",)


async def test_a_watch_yields_once_and_stays_young():
    now = iter(range(1000))
    registry = StaticRegistry(
        "static://127.0.0.1:1", watch_config=WatchConfig(wait_s=0.01), clock=lambda: next(now)
    )
    watch = registry.watch("flowers")
    assert watch is registry.watch("flowers")
    first = await watch.ready(1)
    catalog = await registry.watch_catalog().ready(1)
    assert catalog.services == ()
    while watch.polls < 4:
        await asyncio.sleep(0)
    assert watch.changes == 1
    assert not_none(watch.view).taken_at > first.taken_at
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await watch.changed(not_none(watch.view).index)
    await registry.release("flowers")
    await registry.release("flowers")
    await registry.aclose()


async def test_nothing_can_be_registered(worker):
    registry = StaticRegistry("static://127.0.0.1:1")
    instance = worker.instance("flowers")
    with pytest.raises(ConfigurationError, match=f"add {instance.address} to it"):
        await registry.register(instance)
    with pytest.raises(ConfigurationError, match="fixed list"):
        await registry.set_draining("static-127.0.0.1-1", "why")


async def test_names_are_checked():
    registry = StaticRegistry("static://127.0.0.1:1")
    for name in ("../x", ""):
        with pytest.raises(InvalidName):
            await registry.list(name)
        with pytest.raises(InvalidName):
            registry.watch(name)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("static://", "expected static://HOST:PORT"),
        ("static:127.0.0.1:1", "expected static://HOST:PORT"),
        ("static://127.0.0.1", "'127.0.0.1' is not HOST:PORT"),
        ("static://127.0.0.1:1,", "'' is not HOST:PORT"),
        ("static://127.0.0.1:x", "'127.0.0.1:x' is not HOST:PORT"),
        ("static://fe80::1:80", "'fe80::1:80' is not HOST:PORT"),
        ("static://127.0.0.1:0", "port 0"),
        ("static://127.0.0.1:70000", "port 70000"),
        ("static://999.1.1.1:80", "999.1.1.1"),
        ("static://a b:80", "a b"),
        ("static://../x:80", "static"),
        ("static://h:1,h:2,h:1", "h:1 is listed twice"),
        ("static://h:1?zone=a", "the only option"),
        ("static://h:1?model=../x", "../x"),
        ("static://h:1?model=x@stable", "names an alias"),
        ("static://h:1?model", "model"),
    ],
)
def test_a_bad_list_is_refused_with_its_value(url, problem):
    with pytest.raises(ConfigurationError) as caught:
        StaticRegistry(url)
    assert problem in str(caught.value)
    assert url in str(caught.value)


async def test_foreign_workers():
    registry = StaticRegistry("static://10.0.0.2:80?model=flowers&protocol=v2&size=224x224")
    (found,) = (await registry.list("flowers")).instances
    assert (found.foreign, found.protocol, found.meta["size"]) == (True, "v2", "224x224")
    assert found.models[0].versions == ()
    with pytest.raises(ConfigurationError, match="protocol='grpc': use fingerpost, v2"):
        StaticRegistry("static://10.0.0.2:80?protocol=grpc")
    with pytest.raises(ConfigurationError, match="only options"):
        StaticRegistry("static://10.0.0.2:80?protocol=v2&color=red")


async def test_workers_that_speak_tls():
    registry = StaticRegistry("static://10.0.0.1:80?model=flowers&scheme=https")
    (worker,) = (await registry.list("flowers")).instances
    assert (worker.url, worker.target) == ("https://10.0.0.1:80", "https://10.0.0.1:80#flowers")
    (plain,) = (await StaticRegistry("static://10.0.0.1:80").list("flowers")).instances
    assert (plain.url, plain.target, plain.location) == (
        "http://10.0.0.1:80",
        "10.0.0.1:80",
        "10.0.0.1:80",
    )
    with pytest.raises(ConfigurationError, match="use http or https"):
        StaticRegistry("static://10.0.0.1:80?scheme=ftp")
