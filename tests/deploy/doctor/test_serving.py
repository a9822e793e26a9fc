"""Whether the workers of this machine serve, as a registry, a proxy and an image show it."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.ports import free_port

from fingerpost.deploy.doctor.finding import Finding, Level
from fingerpost.deploy.doctor.serving_checks import check_serving
from fingerpost.registry import RegistryConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.testing import fake_cluster

pytestmark = pytest.mark.shell

MODELS = {"flowers": "daisy", "digits": "7"}


async def look(registry: str, *proxies: str, within_s: float = 5.0) -> list[Finding]:
    return await check_serving(
        registry=registry, registry_config=RegistryConfig(), proxies=proxies, tls=None,
        credential=None, within_s=within_s,
    )  # fmt: skip


async def test_each_model_answers_and_each_proxy_names_it() -> None:
    async with fake_cluster(MODELS) as cluster:
        found = await look(cluster.registry_url, cluster.proxy_url)
    assert [each.level for each in found] == [Level.OK] * 3
    assert {each.check.split()[-1] for each in found[:2]} == MODELS.keys()
    assert "answered an image in" in found[0].message
    assert "it names the workers of this machine" in found[2].message


async def test_workers_that_come_later_are_waited_for() -> None:
    async with fake_cluster(MODELS, workers=0) as cluster:
        looking = asyncio.create_task(look(cluster.registry_url, within_s=30.0))
        await asyncio.sleep(0)
        await cluster.add_worker()
        found = await looking
    assert [each.level for each in found] == [Level.OK] * 2


async def test_what_does_not_serve() -> None:
    async with fake_cluster(MODELS, workers=0) as cluster:
        (found,) = await look(cluster.registry_url, within_s=0.1)
    assert (found.level, found.check) == (Level.ERROR, "worker")
    assert "the registry lists no worker of this machine" in found.message
    assert "journalctl" in found.remedy


async def test_a_proxy_that_does_not_name_them() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    async with fake_cluster({"digits": "7"}) as cluster, EmbeddedRegistry(port=0) as other:
        found = await look(cluster.registry_url, nobody, other.url, within_s=0.5)
    assert [each.level for each in found] == [Level.OK, Level.ERROR, Level.ERROR]
    assert "Connection refused" in found[1].message
    assert found[2].check == f"proxy {other.url}"
