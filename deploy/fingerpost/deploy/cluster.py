"""A whole cluster on one machine: registry, proxy and workers as processes of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aiohttp import ClientError, ClientSession, ClientTimeout

from fingerpost.deploy.children import Child
from fingerpost.registry import ConfigurationError, NoWorker, open_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["Cluster", "ClusterConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """What to start.

    Attributes:
        models: one folder or file for each model to serve.
        repository: a folder of models, which every worker serves; instead of `models`.
        services: how many models that are.
        workers: worker processes for each model, or for the repository.
        proxy_port, registry_port: where the proxy and the embedded registry listen.
        registry: an existing registry's URL, instead of the embedded one.
        worker_options: further options for every `fingerpost worker`.
    """

    models: tuple[Path, ...] = ()
    repository: Path | None = None
    services: int = 1
    workers: int = 3
    proxy_port: int = 12480
    registry_port: int = 12481
    registry: str | None = None
    worker_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigurationError(f"--workers {self.workers}: there must be 1 or more")


class Cluster:
    """Running from `async with` on; left, every process has ended.

    Args:
        config: see `ClusterConfig`.
        say: called with a process's name and each line it writes.
    """

    def __init__(self, config: ClusterConfig, say: Callable[[str, str], None]) -> None:
        self._config = config
        self._say = say
        self.registry_url = config.registry or f"http://127.0.0.1:{config.registry_port}"
        self.proxy_url = f"http://127.0.0.1:{config.proxy_port}"
        self.workers: list[Child] = []
        self._servers: list[Child] = []

    async def __aenter__(self) -> Self:
        """Start registry and proxy, wait until they answer, and start the workers.

        Raises:
            ConfigurationError: one of them cannot run: a port in use, no such model, ...
        """
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the workers first: they tell proxy and registry that they leave."""
        for group in (self.workers, self._servers):
            async with asyncio.TaskGroup() as tasks:
                for child in group:
                    tasks.create_task(child.stop(grace_s=10.0))

    async def ready(self, timeout_s: float) -> None:
        """Wait until every worker is on the registry's healthy list.

        Raises:
            ConfigurationError: a process cannot run.
            NoWorker: the time did not suffice.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._unless_failed(self._all_registered())
        except TimeoutError:
            raise NoWorker(f"not all workers were ready within {timeout_s:g} s") from None

    async def run(self) -> None:
        """Run until cancelled, or until a process fails in a way that a restart cannot mend."""
        await self._unless_failed(asyncio.Event().wait())

    async def _start(self) -> None:
        config = self._config
        if config.registry is None:
            await self._serve("registry", ["registry", "--port", str(config.registry_port)])
            await self._unless_failed(_answers(f"{self.registry_url}/v1/status/leader"))
        proxy = ["proxy", "--port", str(config.proxy_port), "--registry", self.registry_url]
        await self._serve("proxy", proxy)
        await self._unless_failed(_answers(f"{self.proxy_url}/health/live"))
        sources = [("--model", path) for path in config.models]
        if config.repository is not None:
            sources.append(("--models", config.repository))
        for option, path in sources:
            for _ in range(config.workers):
                arguments = ["worker", option, str(path), "--registry", self.registry_url]
                child = Child(
                    f"worker-{len(self.workers) + 1}",
                    [*arguments, "--lease", "0.2", *config.worker_options],
                    self._say,
                )
                self.workers.append(child)
                await child.start()

    async def _serve(self, name: str, arguments: list[str]) -> None:
        child = Child(name, arguments, self._say)
        self._servers.append(child)
        await child.start()

    async def _unless_failed(self, work: Awaitable[object]) -> None:
        """Await `work`, but raise as soon as a child has failed for good."""
        tasks = [asyncio.ensure_future(work)]
        tasks += [asyncio.create_task(child.failed()) for child in (*self._servers, *self.workers)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_registered(self) -> None:
        registry = open_registry(self.registry_url)
        try:
            async for catalog in registry.watch_catalog():
                # Watched one after the other: what is ready stays ready.
                for service in catalog.services:
                    async for snapshot in registry.watch(service):
                        if len(snapshot.instances) >= self._config.workers:
                            break
                if len(catalog.services) >= (len(self._config.models) or self._config.services):
                    return
        finally:
            await registry.aclose()


async def _answers(url: str) -> None:
    """Ask until there is an answer, whatever it says."""
    async with ClientSession(timeout=ClientTimeout(total=1.0)) as session:
        while True:
            try:
                async with session.get(url):
                    return
            except (ClientError, TimeoutError):
                await asyncio.sleep(0.05)
