"""A whole cluster on one machine: registry, proxy and workers as processes of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout

from fingerpost.deploy.processes.supervised import Child
from fingerpost.errors import ConfigurationError, NoWorker, RegistryError
from fingerpost.registry import open_registry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

__all__ = ["Cluster", "ClusterConfig"]

T = TypeVar("T")

# Of a version that will not be served, in the words of `POST /v2/repository/index`.
_UNAVAILABLE: Final = "UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterConfig:
    """What to start.

    Attributes:
        models: one folder or file for each model to serve.
        repository: a folder of models, which every worker serves; instead of `models`.
        services: the names of all models.
        workers: worker processes for each model, or for the repository.
        proxy_port, registry_port: where the proxy and the embedded registry listen.
        registry: an existing registry's URL, instead of the embedded one.
        worker_options: further options for every `fingerpost worker`.
    """

    models: tuple[Path, ...] = ()
    repository: Path | None = None
    services: tuple[str, ...]
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

    async def ready(self, timeout_s: float) -> dict[str, str]:
        """Wait until every worker is on the registry's healthy list, with all that it can serve.

        Returns:
            The models of `repository` that none can serve, and why.

        Raises:
            ConfigurationError: a process cannot run.
            NoWorker: the time did not suffice.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._unless_failed(self._all_registered())
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

    async def _unless_failed(self, work: Awaitable[T]) -> T:
        """Await `work`, but raise as soon as a child has failed for good."""
        working = asyncio.ensure_future(work)
        failing = [asyncio.create_task(each.failed()) for each in (*self._servers, *self.workers)]
        tasks = (working, *failing)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            return await working
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _all_registered(self) -> dict[str, str]:
        registry = open_registry(self.registry_url)
        wanted = set(self._config.services)
        try:
            async for catalog in registry.watch_catalog():
                url = ""
                # Watched one after the other: what is ready stays ready.
                for service in wanted.intersection(catalog.services):
                    async for snapshot in registry.watch(service):
                        if len(snapshot.instances) >= self._config.workers:
                            url = snapshot.instances[0].url
                            break
                missing = wanted.difference(catalog.services)
                broken: dict[str, str] = {}
                if missing and url and self._config.repository is not None:
                    # A worker registers when it has loaded, or failed to, all that it should.
                    broken = await _broken(url, missing)
                if missing <= broken.keys():
                    return broken
        finally:
            await registry.aclose()
        raise RegistryError("the registry's watch has ended")


async def _answers(url: str) -> None:
    """Ask until there is an answer, whatever it says."""
    async with ClientSession(timeout=ClientTimeout(total=1.0)) as session:
        while True:
            try:
                async with session.get(url):
                    return
            except (ClientError, TimeoutError):
                await asyncio.sleep(0.05)


async def _broken(url: str, models: Iterable[str]) -> dict[str, str]:
    """Those models of which a worker has no version and will have none, and why."""
    async with (
        ClientSession(timeout=ClientTimeout(total=10.0)) as session,
        session.post(f"{url}/v2/repository/index") as response,
    ):
        index = await response.json()
    broken = {}
    for model in sorted(models):
        versions = [each for each in index if each["name"] == model]
        if all(each["state"] == _UNAVAILABLE for each in versions):
            reasons = [f"version {each['version']}: {each['reason']}" for each in versions]
            broken[model] = "; ".join(reasons) or "it has no version that is to be served"
    return broken
