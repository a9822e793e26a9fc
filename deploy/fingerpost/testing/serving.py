"""The parts of a real worker around fake models: engine, repository, HTTP server, registration.

`fingerpost.worker.worker.Worker` itself is a whole process: it tunes the memory allocator and the
garbage collector, reads the environment, and cannot end without leaving.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from fingerpost.errors import Draining
from fingerpost.registry import Instance, WorkerState, open_registry
from fingerpost.registry.http.app import bind, serve
from fingerpost.testing.backend import FakeBackend, FakeSource
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.registrations import Registrations
from fingerpost.worker.repository.loader import LoadedModel
from fingerpost.worker.repository.repository import ModelRepository
from fingerpost.worker.service import WorkerService
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.threads import decode_pool

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from aiohttp import web

    from fingerpost.testing.behaviour import Behaviour
    from fingerpost.testing.models import FakeModels
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.serving.admission import Admission

__all__ = ["ServingWorker", "start_worker"]

_HOST: Final = "127.0.0.1"


async def start_worker(
    models: FakeModels,
    behaviour: Behaviour,
    config: WorkerConfig,
    *,
    check_images: bool,
) -> ServingWorker:
    """Load the models, listen on a free port of loopback, and register.

    Args:
        models: what it serves.
        behaviour: how the models behave.
        config: the registry, and what the registration says; the rest stays as it is.
        check_images: refuse what is not an image, as a model that takes pixels does.

    Raises:
        RegistryError: the registry cannot be reached.
    """
    metrics = WorkerMetrics()
    async with AsyncExitStack() as stack:
        registry = open_registry(config.registry)
        stack.push_async_callback(registry.aclose)
        listener = bind(_HOST, 0)
        stack.callback(listener.close)
        decoders = decode_pool(config.models.decode_threads)
        stack.push_async_callback(asyncio.to_thread, decoders.shutdown, cancel_futures=True)
        loader = _Loader(behaviour, config, decoders, metrics, check_images=check_images)
        repository = ModelRepository(
            FakeSource(models),
            loader.load,
            metrics=metrics,
            poll_s=0.0,
            lease_s=0.0,
            announce=_no_announcement,
        )
        stack.push_async_callback(repository.aclose)
        await repository.start()
        boot_id = secrets.randbits(53)
        service = WorkerService(repository, boot_id=boot_id, config=config, metrics=metrics)
        runner = service.runner()
        stack.push_async_callback(runner.cleanup)
        stack.callback(loader.end_runs)
        await runner.setup()
        await serve(runner, listener)
        instances = _instances(repository, config, listener.getsockname()[1], boot_id)
        registrations = Registrations(
            registry, lambda: instances, healthy=service.engine_healthy, lease_s=0.0
        )
        await registrations.register(config.registration.timeout_s)
        service.admission.state = WorkerState.READY
        return ServingWorker(instances, service.admission, runner, registrations, stack.pop_all())


class ServingWorker:
    """A worker that serves, until one of `aclose` and `kill`; see `start_worker`.

    Attributes:
        instances: what it has registered, one for each model.
        admission: which requests are let in.
    """

    def __init__(
        self,
        instances: tuple[Instance, ...],
        admission: Admission,
        runner: web.AppRunner,
        registrations: Registrations,
        stack: AsyncExitStack,
    ) -> None:
        self.instances = instances
        self.admission = admission
        self._runner = runner
        self._registrations = registrations
        self._stack = stack

    async def drain(self) -> None:
        """Leave the registry's healthy list, and refuse new work from now on."""
        self.admission.state = WorkerState.DRAINING
        await self._registrations.drain("leaving")
        self.admission.refusal = Draining("this worker is leaving: use another one")

    async def kill(self) -> None:
        """Stop listening, cut all connections, and end, without deregistering."""
        for site in list(self._runner.sites):
            await site.stop()
        server = self._runner.server
        for connection in server.connections if server is not None else ():
            if connection.transport is not None:
                connection.transport.abort()
        await self._stack.aclose()

    async def aclose(self) -> None:
        """Deregister, stop listening, and end; requests in flight fail."""
        await self._registrations.deregister()
        await self._stack.aclose()


def _instances(
    repository: ModelRepository, config: WorkerConfig, port: int, boot_id: int
) -> tuple[Instance, ...]:
    nonce = secrets.token_hex(4)
    return tuple(
        Instance(
            id=f"{info.name}-{_HOST}-{port}-{nonce}",
            service=info.name,
            host=_HOST,
            ports={"http": port},
            models=(info,),
            weight=config.registration.weight,
            zone=config.registration.zone,
            boot_id=boot_id,
            meta=repository.meta(info.name),
        )
        for info in repository.models()
    )


class _Loader:
    """Makes engines around fake models."""

    def __init__(
        self,
        behaviour: Behaviour,
        config: WorkerConfig,
        decoders: ThreadPoolExecutor,
        metrics: WorkerMetrics,
        *,
        check_images: bool,
    ) -> None:
        self._behaviour = behaviour
        self._config = config
        self._decoders = decoders
        self._metrics = metrics
        self._check_images = check_images
        self._backends: list[FakeBackend] = []

    def load(self, files: ModelFiles) -> LoadedModel:
        """A version's engine, without a warm-up, which would reach the test's function."""
        backend = FakeBackend(
            files.name,
            int(files.version),
            self._behaviour,
            self._config.images if self._check_images else None,
        )
        self._backends.append(backend)
        config = self._config
        engine = Engine(
            backend,
            images=config.images,
            metrics=self._metrics,
            batching=config.batching,
            decoders=self._decoders,
            decode_threads=config.models.decode_threads,
            model=files.name,
        )
        return LoadedModel(engine=engine, labels=backend.labels, meta={"framework": "fake"})

    def end_runs(self) -> None:
        """Let all runs of the models fail now."""
        for backend in self._backends:
            backend.end()
        self._behaviour.wake()


async def _no_announcement() -> None:
    """What is served never changes."""
