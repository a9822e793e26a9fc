"""A whole cluster on one machine: registry, proxy and workers as processes of their own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout

from fingerpost.deploy.processes.supervised import SupervisedProcess
from fingerpost.errors import ConfigurationError, NoWorker, RegistryError
from fingerpost.registry import open_registry
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.http.app import bind
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from fingerpost.security.tls import TlsConfig

__all__ = ["LocalCluster", "LocalClusterConfig"]

T = TypeVar("T")

# State of a version that will not be served, as `POST /v2/repository/index` calls it.
_UNAVAILABLE: Final = "UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalClusterConfig:
    """What a local cluster consists of, validated on construction.

    Attributes:
        models: the folder or file of each model; each has workers of its own.
        repository: a folder of models, all of which every worker serves; instead of `models`.
        services: the names of all models, which `wait_ready` waits for.
        workers: number of worker processes for each model, or for the repository. More use more
            cores and memory; with the default of 3, the loss of one can be seen.
        proxy_port: port of the proxy on loopback; clients look at 12480 by default.
        registry_port: port of the embedded registry on loopback; commands use 12481 by default.
        registry: URL of an existing registry, instead of the embedded one.
        registry_config: access to the registry, for this process; see `tls` for the others.
        tls: what this process shows the others, and believes of them. None is a cluster without
            TLS. The processes get theirs by the options below.
        registry_options: further options for `fingerpost registry`, the embedded one.
        proxy_options: further options for `fingerpost proxy`.
        worker_options: further options for every `fingerpost worker`.
    """

    models: tuple[Path, ...] = ()
    repository: Path | None = None
    services: tuple[str, ...]
    workers: int = 3
    proxy_port: int = 12480
    registry_port: int = 12481
    registry: str | None = None
    registry_config: RegistryConfig = field(default_factory=RegistryConfig)
    tls: TlsConfig | None = None
    registry_options: tuple[str, ...] = ()
    proxy_options: tuple[str, ...] = ()
    worker_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigurationError(f"workers is {self.workers}: give --workers 1 or more")


class LocalCluster:
    """A registry, a proxy and workers as processes on this machine, while inside `async with`.

    When `async with` is left, every process has ended.

    Args:
        config: see `LocalClusterConfig`.
        on_line: called with a process's name and each line it writes.
    """

    def __init__(self, config: LocalClusterConfig, on_line: Callable[[str, str], None]) -> None:
        self._config = config
        self._on_line = on_line
        scheme = "http" if config.tls is None else "https"
        self.registry_url = config.registry or f"{scheme}://127.0.0.1:{config.registry_port}"
        self.proxy_url = f"{scheme}://127.0.0.1:{config.proxy_port}"
        self._tls = ClientTls(config.tls) if config.tls is not None else None
        self.workers: list[SupervisedProcess] = []
        self._servers: list[SupervisedProcess] = []

    async def __aenter__(self) -> Self:
        """Start registry and proxy, wait until they answer, and start the workers.

        Raises:
            ConfigurationError: a process cannot run, for example because its port is in use or
                the model does not exist.
        """
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the workers first, so that the registry and the proxy learn that they leave."""
        for group in (self.workers, self._servers):
            async with asyncio.TaskGroup() as tasks:
                for process in group:
                    tasks.create_task(process.stop(grace_s=10.0))

    async def wait_ready(self, timeout_s: float) -> dict[str, str]:
        """Wait until the registry lists every worker as healthy, with all models it can serve.

        Returns:
            The models of `repository` that no worker can serve, each with the reason.

        Raises:
            ConfigurationError: a process cannot run.
            NoWorker: not all workers were ready within `timeout_s` seconds.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._unless_failed(self._all_registered())
        except TimeoutError:
            raise NoWorker(f"not all workers were ready within {timeout_s:g} s") from None

    async def run(self) -> None:
        """Wait until cancelled; raise if a process fails in a way that a restart cannot repair."""
        await self._unless_failed(asyncio.Event().wait())

    async def _start(self) -> None:
        config = self._config
        _check_free("proxy", config.proxy_port, "--port")
        if config.registry is None:
            _check_free("registry", config.registry_port, "--registry-port")
            registry = ["registry", "--port", str(config.registry_port), *config.registry_options]
            await self._serve("registry", registry)
            await self._unless_failed(self._wait_answer(f"{self.registry_url}/v1/status/leader"))
        proxy = ["proxy", "--port", str(config.proxy_port), "--registry", self.registry_url]
        await self._serve("proxy", [*proxy, *config.proxy_options])
        await self._unless_failed(self._wait_answer(f"{self.proxy_url}/health/live"))
        sources = [("--model", path) for path in config.models]
        if config.repository is not None:
            sources.append(("--models", config.repository))
        for option, path in sources:
            for _ in range(config.workers):
                arguments = ["worker", option, str(path), "--registry", self.registry_url]
                process = SupervisedProcess(
                    f"worker-{len(self.workers) + 1}",
                    [*arguments, "--lease", "0.2", *config.worker_options],
                    self._on_line,
                )
                self.workers.append(process)
                await process.start()

    async def _serve(self, name: str, arguments: list[str]) -> None:
        process = SupervisedProcess(name, arguments, self._on_line)
        self._servers.append(process)
        await process.start()

    async def _unless_failed(self, work: Awaitable[T]) -> T:
        """Await `work`, but raise when a process fails in a way that a restart cannot repair."""
        working = asyncio.ensure_future(work)
        failing = [
            asyncio.create_task(each.wait_failed()) for each in (*self._servers, *self.workers)
        ]
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
        registry = open_registry(
            self.registry_url, self._config.registry_config, tls=self._config.tls
        )
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
                    broken = await self._broken(url, missing)
                if missing <= broken.keys():
                    return broken
        finally:
            await registry.aclose()
        raise RegistryError("the registry's watch has ended")

    async def _wait_answer(self, url: str) -> None:
        """Ask until there is an answer, whatever its status."""
        tls = None if self._tls is None else self._tls.for_host()
        async with _session(1.0) as session:
            while True:
                try:
                    async with session.get(url, allow_redirects=False, ssl=tls or True):
                        return
                except (ClientError, TimeoutError):
                    await asyncio.sleep(0.05)

    async def _broken(self, url: str, models: Iterable[str]) -> dict[str, str]:
        """The models of which a worker can load no version, each with the reason."""
        tls = None if self._tls is None else self._tls.for_any_worker()
        async with (
            _session(10.0) as session,
            session.post(
                f"{url}/v2/repository/index", allow_redirects=False, ssl=tls or True
            ) as response,
        ):
            index = await response.json()
        broken = {}
        for model in sorted(models):
            versions = [each for each in index if each["name"] == model]
            if all(each["state"] == _UNAVAILABLE for each in versions):
                reasons = [f"version {each['version']}: {each['reason']}" for each in versions]
                broken[model] = "; ".join(reasons) or "none of its versions is to be served"
        return broken


def _session(timeout_s: float) -> ClientSession:
    return ClientSession(timeout=ClientTimeout(total=timeout_s))


def _check_free(name: str, port: int, option: str) -> None:
    """Raise `ConfigurationError` if another process listens there: its answers would be taken."""
    try:
        bind("127.0.0.1", port).close()
    except ConfigurationError as error:
        raise ConfigurationError(
            f"the {name} cannot listen on 127.0.0.1:{port}, the address is in use: stop what runs "
            f"there, such as another `fingerpost up`, or give another port ({option})"
        ) from error
