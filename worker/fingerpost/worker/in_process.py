"""What takes a worker's requests in this process: its models, and the server around them."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from fingerpost.registry.access import Callers
from fingerpost.registry.access.metrics import AccessMetrics
from fingerpost.registry.http.app import serve
from fingerpost.security.leases.verifier import LeaseVerifier
from fingerpost.worker.protocols.admin import AdminProtocol
from fingerpost.worker.protocols.admin_access import AdminAccess
from fingerpost.worker.repository.control import ModelControl
from fingerpost.worker.repository.loader import EngineLoader
from fingerpost.worker.repository.repository import ModelRepository
from fingerpost.worker.service import WorkerService
from fingerpost.worker.serving.lease_gate import LeaseGate
from fingerpost.worker.serving.lease_keys import LeaseKeys
from fingerpost.worker.telemetry.observer import Observer
from fingerpost.worker.threads import decode_pool
from fingerpost.worker.transports import more_ports
from fingerpost.worker.uds_transport import unix_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fingerpost.errors import FingerpostError
    from fingerpost.registry import LoadReport, ModelInfo, Registry, WorkerState
    from fingerpost.security.tls import ServerTls
    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.models.files import ModelFiles
    from fingerpost.worker.repository.sources import ModelSource
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["InProcess", "Parts", "RequestSide", "serve_in_process"]


class RequestSide(Protocol):
    """What takes the requests of a worker: this process, or several front ends.

    Attributes:
        ports: see `Instance.ports`.
        meta: what is registered with every model.
    """

    ports: dict[str, int]
    meta: dict[str, str]

    def models(self) -> tuple[ModelInfo, ...]:
        """What is to be registered."""
        ...

    def meta_of(self, model: str) -> dict[str, str]:
        """What is registered with one model."""
        ...

    def load(self) -> LoadReport:
        """The load."""
        ...

    def engine_healthy(self) -> bool:
        """See `WorkerService.engine_healthy`."""
        ...

    @property
    def state(self) -> WorkerState:
        """The worker's state."""
        ...

    def set_state(self, state: WorkerState) -> None:
        """Set the worker's state."""
        ...

    def refuse(self, error: FingerpostError) -> None:
        """Refuse all new requests from here on."""
        ...

    async def idle(self, timeout_s: float) -> bool:
        """Wait until no request is in flight; False at the timeout."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker gives its request side.

    Attributes:
        config: its settings.
        source: where the models are.
        load: makes a backend of a version's files.
        registry: where the keys of leases may be.
        tls: what is served with.
        metrics: counts the requests.
        boot_id: see `WorkerService`.
        announce: tells the registry what is served now.
    """

    config: WorkerConfig
    source: ModelSource
    load: Callable[[ModelFiles], Backend]
    registry: Registry
    tls: ServerTls | None
    metrics: WorkerMetrics
    boot_id: int
    announce: Callable[[], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class InProcess:
    """A `RequestSide` in this process."""

    repository: ModelRepository
    service: WorkerService
    ports: dict[str, int] = field(default_factory=dict)
    meta: dict[str, str] = field(default_factory=dict)

    def models(self) -> tuple[ModelInfo, ...]:
        """See `RequestSide`."""
        return self.repository.models()

    def meta_of(self, model: str) -> dict[str, str]:
        """See `RequestSide`."""
        return self.repository.meta(model)

    def load(self) -> LoadReport:
        """See `RequestSide`."""
        return self.service.load()

    def engine_healthy(self) -> bool:
        """See `RequestSide`."""
        return self.service.engine_healthy()

    @property
    def state(self) -> WorkerState:
        """See `RequestSide`."""
        return self.service.admission.state

    def set_state(self, state: WorkerState) -> None:
        """See `RequestSide`."""
        self.service.admission.state = state

    def refuse(self, error: FingerpostError) -> None:
        """See `RequestSide`."""
        self.service.admission.refusal = error

    async def idle(self, timeout_s: float) -> bool:
        """See `RequestSide`."""
        return await self.service.admission.idle(timeout_s)


@asynccontextmanager
async def serve_in_process(
    parts: Parts,
    listener: socket.socket,
    *,
    make_service: Callable[..., WorkerService] = WorkerService,
    frameworks: bool = True,
) -> AsyncIterator[InProcess]:
    """Load and warm up the models, and listen inside the `async with` block.

    Args:
        parts: the worker's.
        listener: a bound socket.
        make_service: makes the HTTP application, from the arguments of `WorkerService`.
        frameworks: whether the models run in this process.

    Raises:
        ConfigurationError: no model that can be loaded and run, or a port in use.
        RegistryError: the keys of leases cannot be read.
    """
    config, metrics = parts.config, parts.metrics
    async with AsyncExitStack() as leaving:
        callers = await leaving.enter_async_context(
            Callers(config.callers, AccessMetrics(metrics.registry))
        )
        leases = None
        if config.leases.required:
            keys = await leaving.enter_async_context(
                LeaseKeys.configured(config.leases, parts.registry)
            )
            verifier = LeaseVerifier(keys.current, config.leases.rules, time.time)
            leases = LeaseGate(verifier, metrics.lease_refused, callers.audit)
        observer = Observer.configured(
            metrics,
            os.environ,
            access_log=config.telemetry.access_log,
            tracing=config.telemetry.tracing,
        )
        leaving.push_async_callback(observer.aclose)
        decoders = decode_pool(config.models.decode_threads)
        leaving.push_async_callback(asyncio.to_thread, decoders.shutdown, cancel_futures=True)
        repository = ModelRepository(
            parts.source,
            EngineLoader(parts.load, config, decoders, metrics, frameworks=frameworks),
            metrics=metrics,
            poll_s=config.models.poll_s,
            lease_s=config.drain.lease_s,
            announce=parts.announce,
        )
        leaving.push_async_callback(repository.aclose)
        await repository.start()
        access = _admin_access(config, metrics, callers)
        service = make_service(
            repository,
            boot_id=parts.boot_id,
            config=config,
            metrics=metrics,
            observer=observer,
            extra=None if access is None else AdminProtocol(repository, access).add_to,
            leases=leases,
        )
        runner = service.runner()
        leaving.push_async_callback(runner.cleanup)
        await runner.setup()
        await serve(runner, listener, parts.tls)
        side = InProcess(repository=repository, service=service)
        side.ports["http"] = listener.getsockname()[1]
        side.meta |= await leaving.enter_async_context(
            unix_socket(runner, service.frames, config.uds, parts.tls)
        )
        side.ports |= await leaving.enter_async_context(
            more_ports(service, config, metrics, ModelControl(repository), access)
        )
        yield side


def _admin_access(
    config: WorkerConfig, metrics: WorkerMetrics, callers: Callers
) -> AdminAccess | None:
    """Who may use the admin API, which is there only with a token or callers."""
    if not config.has_admin_api:
        return None
    names = filter(None, (config.host, config.registration.advertise))
    return AdminAccess(config.models.admin_token, callers, metrics.admin_denied, names)
