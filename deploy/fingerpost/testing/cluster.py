"""A registry, a proxy and workers in the event loop of a test."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from yarl import URL

from fingerpost.client.resolver import ProxyResolver
from fingerpost.errors import ConfigurationError
from fingerpost.proxy import Proxy, ProxyConfig
from fingerpost.registry.embedded import EmbeddedRegistry
from fingerpost.testing.models import FakeModels
from fingerpost.testing.worker import FakeWorker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.testing.models import FakeModel

__all__ = ["FakeCluster", "fake_cluster"]


def fake_cluster(
    models: Mapping[str, FakeModel],
    *,
    workers: int = 1,
    aliases: Mapping[str, Mapping[str, str]] | None = None,
    check_images: bool = False,
    relay: bool = False,
) -> FakeCluster:
    """A cluster for `async with`.

    ::

        async with fake_cluster({"flowers": lambda image: [("daisy", 0.98)]}) as cluster:
            async with Client(cluster.proxy_url) as client:
                result = await client.classify(b"an image", "flowers")
        assert result.label == "daisy"

    Args:
        models: what each worker serves, by name (`flowers`) or by name and version (`flowers@3`):
            labels with scores, a single label, or a function of the image's bytes that returns
            either; see `FakeModel`.
        workers: how many there are at first; 0 for those that `FakeCluster.add_worker` starts, or
            that join by themselves.
        aliases: by model and alias the version, such as `{"flowers": {"stable": "3"}}`.
        check_images: refuse what is not an image, as a model that takes pixels does. By default
            the models get whatever bytes were sent.
        relay: whether the proxy relays images, for clients with `ClientConfig(relay=True)`.

    Raises:
        ConfigurationError: a name, version, alias or model that is not valid; or workers without
            a model.
    """
    return FakeCluster(
        FakeModels(models, aliases), workers=workers, check_images=check_images, relay=relay
    )


class FakeCluster:
    """What `fake_cluster` makes; usable within its `async with` block.

    Attributes:
        workers: the workers, in the order in which they were added.
    """

    def __init__(
        self, models: FakeModels, *, workers: int, check_images: bool, relay: bool
    ) -> None:
        if workers < 0:
            raise ConfigurationError(f"workers is {workers}: it must be 0 or more")
        if workers and not models.names:
            raise ConfigurationError('there is no model: give one, such as {"flowers": "daisy"}')
        self._models = models
        self._count = workers
        self._check_images = check_images
        self._relay = relay
        self._registry = EmbeddedRegistry(port=0)
        self._proxy: Proxy | None = None
        self._proxy_port = 0
        self._stack = AsyncExitStack()
        self.workers: list[FakeWorker] = []

    async def __aenter__(self) -> Self:
        """Start everything; return once the proxy lists all workers."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._registry)
            stack.push_async_callback(self.stop_proxy)
            await self.start_proxy()
            stack.push_async_callback(self._close_workers)
            await asyncio.gather(*(self._start(self._models) for _ in range(self._count)))
            await self.settled()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        # aiohttp cancels what waits on idle connections; it ends in the loop's next turn.
        await asyncio.sleep(0)

    @property
    def proxy_url(self) -> str:
        """The proxy's URL, for `Client`; the same as long as the cluster is there."""
        return f"http://127.0.0.1:{self._proxy_port}"

    @property
    def registry_url(self) -> str:
        """The registry's URL, for a client that needs no proxy."""
        return self._registry.url

    async def add_worker(
        self,
        models: Mapping[str, FakeModel] | None = None,
        *,
        aliases: Mapping[str, Mapping[str, str]] | None = None,
        zone: str = "",
        weight: int = 1,
    ) -> FakeWorker:
        """Start one more worker; return once the proxy lists it.

        Args:
            models: what it serves; by default the models of `fake_cluster`, with their aliases.
            aliases: those of its own models.
            zone: where it says it stands.
            weight: its share of requests relative to other workers.

        Raises:
            ConfigurationError: see `fake_cluster`.
        """
        own = self._models if models is None else FakeModels(models, aliases)
        worker = await self._start(own, zone=zone, weight=weight)
        if self._proxy is not None:
            await self.settled()
        return worker

    async def settled(self, *, timeout_s: float = 10.0) -> None:
        """Wait until the proxy lists exactly the workers that are neither draining nor dead.

        Raises:
            TimeoutError: it does not within `timeout_s`.
        """
        wanted: dict[str, set[str]] = {name: set() for name in self._models.names}
        for worker in self.workers:
            for instance in () if worker.draining else worker.instances:
                wanted.setdefault(instance.service, set()).add(instance.id)
        resolver = ProxyResolver([URL(self.proxy_url)], connect_timeout_s=timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                for name, ids in wanted.items():
                    async for snapshot in resolver.watch(name):
                        if {each.id for each in snapshot.instances} == ids:
                            break
        finally:
            await resolver.aclose()

    async def stop_proxy(self) -> None:
        """End the proxy: clients go on with what they know."""
        proxy, self._proxy = self._proxy, None
        if proxy is not None:
            await proxy.leave(grace_s=0.0)  # lookups that are held are answered now
            await proxy.__aexit__(None, None, None)

    async def start_proxy(self) -> None:
        """Start the proxy anew, on the same port; nothing happens while it runs."""
        if self._proxy is None:
            config = ProxyConfig(
                registry=self._registry.url, port=self._proxy_port, relay=self._relay
            )
            self._proxy = await Proxy(config).__aenter__()
            self._proxy_port = self._proxy.port

    async def stop_registry(self) -> None:
        """End the registry: the proxy and the clients go on with what they know."""
        await self._registry.aclose()

    async def start_registry(self) -> None:
        """Start the registry anew on the same port; workers register again within seconds."""
        await self._registry.start()

    async def _start(self, models: FakeModels, *, zone: str = "", weight: int = 1) -> FakeWorker:
        worker = FakeWorker(
            models,
            registry=self._registry.url,
            zone=zone,
            weight=weight,
            check_images=self._check_images,
        )
        self.workers.append(worker)
        await worker.restart()
        return worker

    async def _close_workers(self) -> None:
        await asyncio.gather(*(worker.aclose() for worker in self.workers))
