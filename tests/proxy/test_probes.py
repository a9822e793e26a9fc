"""The proxy's probes, beside workers that answer whatever an attacker likes."""

from __future__ import annotations

import contextlib

import aiohttp
import msgspec
import pytest
from tests.proxy.world import FakeWorker
from tests.support.colours import encoded
from tests.support.hostile import ENDLESS, FIXED, serving_hostile
from tests.support.rig import serving
from tests.support.waiting import until

from fingerpost.basics.supervision import UNEXPECTED_ERRORS
from fingerpost.client.wire import ResolveAnswer
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.load_client import LoadClient

ALL = {**{name: (first, b"") for name, first in FIXED.items()}, **ENDLESS}


@pytest.fixture
async def good():
    worker = FakeWorker()
    await worker.start()
    yield worker
    await worker.stop()


def proxy_of(*ports: int) -> Proxy:
    addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
    registry = f"static://{addresses}?model=digits"
    return Proxy(ProxyConfig(registry=registry, port=0, probe_interval_s=0.02))


async def reports(http: aiohttp.ClientSession) -> dict[str, object]:
    async with http.get("/v1/resolve/digits") as response:
        answer = msgspec.json.decode(await response.read(), type=ResolveAnswer)
    return {each.address: each.load for each in answer.instances}


@pytest.mark.parametrize("name", ALL)
async def test_a_hostile_worker_does_not_stop_the_probes_of_a_good_one(good, name):
    before = UNEXPECTED_ERRORS["load probes"]
    async with (
        serving_hostile(*ALL[name]) as hostile,
        proxy_of(hostile.port, good.port) as proxy,
        aiohttp.ClientSession(proxy.url) as http,
    ):
        await until(lambda: len(hostile.requests) >= 3, within_s=20)
        probed = good.probes
        await until(lambda: good.probes > probed, within_s=20)
        loads = await reports(http)
    assert loads[f"127.0.0.1:{good.port}"] is not None
    assert loads[hostile.address] is None
    assert UNEXPECTED_ERRORS["load probes"] == before, "each is a typed error of that worker"


async def test_what_nobody_expected_does_not_stop_them_either(good, monkeypatch):
    """A fault of ours in reading one worker's answer."""
    before = UNEXPECTED_ERRORS["load probes"]
    get = LoadClient.get

    async def broken(self, instance):
        if instance.ports["http"] != good.port:
            raise AssertionError("nobody expects this")
        return await get(self, instance)

    monkeypatch.setattr(LoadClient, "get", broken)
    async with proxy_of(1, good.port) as proxy, aiohttp.ClientSession(proxy.url) as http:
        await until(lambda: good.probes >= 5, within_s=20)
        assert (await reports(http))[f"127.0.0.1:{good.port}"] is not None
        async with http.get("/metrics") as response:
            text = await response.text()
    assert 'fingerpost_proxy_unexpected_errors_total{task="load probes"}' in text
    assert UNEXPECTED_ERRORS["load probes"] - before >= 3


async def address(http: aiohttp.ClientSession) -> str:
    async with http.get("/", headers={"Accept": "*/*"}) as response:
        return (await response.text()).strip()


async def test_an_entry_without_a_boot_id_gets_that_of_the_process_that_answers() -> None:
    async with contextlib.AsyncExitStack() as stack:
        rig = await stack.enter_async_context(serving())
        registry = f"static://127.0.0.1:{rig.port}?model=colours"
        config = ProxyConfig(registry=registry, port=0, probe_interval_s=0.02)
        proxy = await stack.enter_async_context(Proxy(config))
        http = await stack.enter_async_context(aiohttp.ClientSession(proxy.url))
        named = f"127.0.0.1:{rig.port}/instance/1/colours"

        async def is_named() -> bool:
            return await address(http) == named

        await until(is_named, "it is named with its boot id")
        async with http.post("/v1/classify/colours", data=b"", allow_redirects=False) as response:
            assert response.headers["Location"] == f"http://{named}/v1/classify/colours"
        async with http.get("/", headers={"Accept": "text/plain"}) as response:
            assert await response.text() == f"127.0.0.1:{rig.port}\n"
        # Another process has the port now.
        rig.service.admission._boot_id, rig.service._boot_id = "2", 2
        async with http.post(f"http://{named}", data=encoded("red")) as response:
            assert (response.status, b"misdirected" in await response.read()) == (421, True)
        named = f"127.0.0.1:{rig.port}/instance/2/colours"
        await until(is_named, "the other one is named")


async def test_a_worker_that_does_not_know_such_paths_is_named_without(good) -> None:
    """Of release 0.1: it answers 404."""
    good.boot_id = 4711
    async with proxy_of(good.port) as proxy, aiohttp.ClientSession(proxy.url) as http:
        await until(lambda: good.probes >= 5)
        assert await address(http) == f"127.0.0.1:{good.port}"
