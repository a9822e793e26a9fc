"""Real proxies that relay, on real sockets."""

from __future__ import annotations

from contextlib import AsyncExitStack

import aiohttp
import pytest
from aiohttp.web_protocol import RequestHandler
from tests.support.waiting import until

from fingerpost.client import Client, ClientConfig
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry import open_registry
from fingerpost.registry.embedded import EmbeddedRegistry


class Relays:
    """A registry, and real proxies that are stopped with the test."""

    def __init__(self, cluster, stack, registry):
        self.cluster = cluster
        self.registry = registry
        self._registry = open_registry(registry)
        self._stack = stack
        stack.push_async_callback(self._registry.aclose)
        self._opened = {}

    async def proxy(self, count=0, *, relay=True, registry=None):
        """A proxy that knows of so many workers; `registry` names another registry."""
        registry = registry or self.registry
        proxy = Proxy(ProxyConfig(registry=registry, port=0, relay=relay, probe_interval_s=0))
        self._opened[proxy] = await self._stack.enter_async_context(AsyncExitStack())
        await self._opened[proxy].enter_async_context(proxy)
        if count:
            await self._known(proxy, count)
        return proxy

    async def stop(self, proxy):
        await proxy.leave(0.0)  # held lookups are answered
        await self._opened.pop(proxy).aclose()

    async def aclose(self):
        for client in self.cluster.clients:
            await client.aclose()
        for proxy in list(self._opened):
            await self.stop(proxy)

    async def add(self, name, meta=None, **options):
        worker = await self.cluster.worker(name, **options)
        worker.meta = meta or {}
        await self._registry.register(worker.instance)
        return worker

    async def _known(self, proxy, count):
        headers = {"Accept": "text/plain"}
        async with aiohttp.ClientSession() as http:

            async def known() -> bool:
                async with http.get(f"{proxy.url}/v1/resolve/digits", headers=headers) as answer:
                    return answer.status == 200 and len((await answer.text()).split()) == count

            await until(known)

    def client(self, *proxies, tracing=None, **config):
        made = Client(
            *(each if isinstance(each, str) else each.url for each in proxies),
            config=ClientConfig(relay=True, **config),
            tracing=tracing,
        )
        self.cluster.clients.append(made)
        return made


@pytest.fixture
async def relays(cluster, monkeypatch):
    # How long aiohttp's servers wait for the rest of an upload that nobody will send.
    monkeypatch.setitem(RequestHandler.__init__.__kwdefaults__, "lingering_time", 0.1)
    async with AsyncExitStack() as stack:
        embedded = await stack.enter_async_context(EmbeddedRegistry(port=0))
        relays = Relays(cluster, stack, embedded.url)
        yield relays
        await relays.aclose()
