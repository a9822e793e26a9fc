from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.proxy.world import World

from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import open_registry
from fingerpost.registry.embedded import EmbeddedRegistry


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    settings = getattr(request, "param", {})
    async with EmbeddedRegistry(port=0) as embedded:
        registry = open_registry(embedded.url)
        config = ProxyConfig(
            registry=embedded.url, port=0, **{"probe_interval_s": 0.05, **settings}
        )
        async with Proxy(config) as proxy:
            world = World(embedded, registry, proxy)
            yield world
            await world.http.close()
        await registry.aclose()
    # Last, after all that probes them: what a server accepts while it stops is never closed.
    await world.stop_workers()
