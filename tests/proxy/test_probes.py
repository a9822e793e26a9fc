"""The proxy's probes, beside workers that answer whatever an attacker likes."""

from __future__ import annotations

import aiohttp
import msgspec
import pytest
from tests.proxy.world import FakeWorker
from tests.support.hostile import ENDLESS, FIXED, serving_hostile
from tests.support.waiting import until

from fingerpost.client.wire import ResolveAnswer
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.load_client import LoadClient
from fingerpost.registry.supervision import UNEXPECTED_ERRORS

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
