"""A worker from its start to its end: load, listen, register, drain, deregister."""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

from fingerpost.basics.service_manager import ServiceManager
from fingerpost.basics.shutdown import ShutdownSignals, end_with_parent
from fingerpost.errors import Draining, RegistryError
from fingerpost.registry import Instance, WorkerState, open_registry
from fingerpost.registry.http.app import bind
from fingerpost.registry.instance import SCHEME_KEY, address_in_id
from fingerpost.registry.version import __version__
from fingerpost.security.tls import ServerTls
from fingerpost.worker.address import advertised_host, is_own_address
from fingerpost.worker.address_check import check_for_tls, warn_of_identity
from fingerpost.worker.backends.python_object import describe_object, load_object
from fingerpost.worker.config import WorkerConfig
from fingerpost.worker.in_process import Parts, serve_in_process
from fingerpost.worker.models.files import ModelFiles
from fingerpost.worker.registrations import Registrations, wait_for_registry
from fingerpost.worker.repository.loader import check_labels
from fingerpost.worker.repository.sources import FixedModel
from fingerpost.worker.serving.malloc import limit_malloc_arenas
from fingerpost.worker.signed_instances import signed_instances
from fingerpost.worker.status_line import status_line
from fingerpost.worker.telemetry.metrics import WorkerMetrics
from fingerpost.worker.transports import transport_meta

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.backends.python_object import PythonModel
    from fingerpost.worker.in_process import RequestSide
    from fingerpost.worker.repository.sources import ModelSource

__all__ = ["Worker", "check_labels"]

logger = logging.getLogger(__name__)


class Worker:
    """A worker in a program of your own.

    An asynchronous context manager that loads the models, warms them up and listens. Clients find
    it after `register`; `leave` drains it.

    ::

        worker = Worker.for_object(Flowers(), name="flowers")
        async with worker:              # loaded, warmed up, listening
            await worker.register()     # clients find it from here on
            await stop.wait()           # your program's own business
            await worker.leave()        # no new requests; those in flight are finished

    A worker changes three settings of its process: threads share one malloc arena (Linux), objects
    that exist when the first model is loaded are left out of garbage collections (`gc.freeze`), and
    threads that decode images or run models have a lower priority (Linux).

    Args:
        models: where the models are; or the files of the only one. See `for_object` for a Python
            object.
        load: makes the backend from a version's files; called in a thread. Mostly
            `load_model`.
        config: see `WorkerConfig`.
        prepare: called first in each front end, where there are several, such as to start the log
            there. It is pickled, so it must be a function of a module, or a `partial` of one.
    """

    def __init__(
        self,
        models: ModelSource | ModelFiles,
        load: Callable[[ModelFiles], Backend],
        config: WorkerConfig,
        *,
        prepare: Callable[[], object] | None = None,
    ) -> None:
        self._source = FixedModel(models) if isinstance(models, ModelFiles) else models
        self._load = load
        self._prepare = prepare
        self._config = config
        self._tls = None if config.tls is None else ServerTls(config.tls)
        self._registry = open_registry(
            config.registry, check_for_tls(config, self._tls), tls=config.tls
        )
        self._transport_meta = transport_meta(config)
        self._signed = signed_instances(config)
        self._metrics = WorkerMetrics(self._tls)
        self._boot_id = secrets.randbits(53)
        self._nonce = secrets.token_hex(4)
        self._service_manager = ServiceManager()
        self._running: _Running | None = None
        self._leaving = AsyncExitStack()

    @classmethod
    def for_object(
        cls,
        model: PythonModel,
        *,
        name: str,
        version: str = "1",
        labels: Sequence[str] | None = None,
        image_size: int | tuple[int, int] | None = None,
        max_batch: int | None = None,
        config: WorkerConfig | None = None,
    ) -> Self:
        """A worker that serves one Python object; see `PythonModel` for what it may have.

        Args:
            model: an object with a method `predict(batch)`, which gets uint8
                `[N, height, width, 3]` in 0..255, RGB, and returns scores `[N, classes]`. If it
                has a method `load()`, that is called once, in a thread, before the warm-up.
            name: the name of the model, which clients ask for: 1 to 63 lower-case letters, digits
                and hyphens.
            version: its version, a number.
            labels: the names of the classes, in the order of the scores; by default the object's
                attribute `labels`, else the numbers of the classes.
            image_size: pixels of both sides, or `(height, width)`; by default the object's
                attributes `height` and `width`.
            max_batch: most images in one call of `predict`; by default the object's attribute
                `max_batch`, else 32.
            config: the settings of the worker; by default it listens on a free port of loopback and
                registers with the registry that `fingerpost registry` runs on this machine.

        Raises:
            ConfigurationError: a value that is not valid.
        """
        files = describe_object(
            model,
            name=name,
            version=version,
            labels=labels,
            image_size=image_size,
            max_batch=max_batch,
        )
        return cls(files, partial(load_object, model), config or WorkerConfig())

    @property
    def instances(self) -> tuple[Instance, ...]:
        """What is, or will be, registered: one instance for each model, sorted by name.

        Only after the start.
        """
        running, config = self._require_running(), self._config
        address = address_in_id(running.host, running.side.ports["http"])
        own_meta = {"fingerpost": __version__, **running.side.meta, **running.meta}
        if self._tls is not None:
            own_meta[SCHEME_KEY] = "https"
        return tuple(
            Instance(
                id=f"{info.name}-{address}-{self._nonce}",
                service=info.name,
                host=running.host,
                ports=running.side.ports,
                models=(info,),
                weight=config.registration.weight,
                zone=config.registration.zone,
                boot_id=self._boot_id,
                meta=running.side.meta_of(info.name) | own_meta,
            )
            for info in running.side.models()
        )

    @property
    def instance(self) -> Instance:
        """The first of `instances`."""
        return self.instances[0]

    async def __aenter__(self) -> Self:
        """Load and warm up the models, and listen.

        Raises:
            ConfigurationError: a port in use, an address that clients would reject, or no model
                that can be loaded and run.
            RegistryError: the registry refuses access, or cannot be reached for
                `registration.registry_wait_s`; raised before a model is loaded.
        """
        config = self._config
        limit_malloc_arenas()
        async with AsyncExitStack() as leaving:
            leaving.push_async_callback(self._registry.aclose)
            host = advertised_host(config)
            listener = bind(config.host, config.port)
            leaving.callback(listener.close)
            self._service_manager.status("waiting for the registry")
            await wait_for_registry(
                self._registry,
                config.registration.registry_wait_s,
                hint=" Start one with `fingerpost registry`, or name yours"
                if config.registry == "embedded"
                else "",
            )
            self._service_manager.status("loading and warming up the models")
            side = await leaving.enter_async_context(self._request_side(listener))
            registrations = Registrations(
                self._registry,
                self._registered,
                healthy=side.engine_healthy,
                lease_s=config.drain.lease_s,
            )
            leaving.push_async_callback(registrations.deregister)
            if self._signed is not None:
                renewal = asyncio.create_task(self._signed.renew(registrations.sync))
                leaving.push_async_callback(_end, renewal)
            self._running = _Running(
                host=host, side=side, registrations=registrations, meta=self._transport_meta
            )
            self._leaving = leaving.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Deregister, stop listening and free everything; requests in flight are not awaited."""
        await self._leaving.aclose()

    async def register(self) -> None:
        """Register, so that clients find this worker; try for `registration.timeout_s`.

        Raises:
            RegistryError: see `Registrations.register`.
        """
        running = self._require_running()
        registrations = running.registrations
        config = self._config.registration
        await self._remove_stale_entries()
        await registrations.register(config.timeout_s, unreachable_s=config.registry_wait_s)
        self._metrics.reregistrations.set_function(lambda: registrations.reregistrations)
        running.side.set_state(WorkerState.READY)
        for instance in self.instances:
            logger.info("ready at %s as %s", instance.url, instance.id)
            warn_of_identity(self._tls, instance.service)

    async def leave(self) -> None:
        """Drain: tell the registry, accept requests for the lease, finish those in flight."""
        running, config = self._require_running(), self._config
        side = running.side
        logger.info("draining: no new requests after %g s", config.drain.lease_s)
        side.set_state(WorkerState.DRAINING)
        await running.registrations.drain("leaving")
        await asyncio.sleep(config.drain.lease_s)
        side.refuse(Draining("this worker is leaving: use another one"))
        if not await side.idle(config.drain.timeout_s):
            logger.warning(
                "%d requests are still in flight after %g s and will fail",
                side.load().rif,
                config.drain.timeout_s,
            )

    async def run_until_signal(
        self, *, follow_parent: bool = False, service_manager: ServiceManager | None = None
    ) -> None:
        """Start, register, serve until SIGTERM or SIGINT, then drain and stop.

        A second signal ends the process at once. Only in the main thread, which gets the signals.

        Args:
            follow_parent: see `ShutdownSignals`.
            service_manager: is told when the worker is registered, what it does, and when it
                drains. Its watchdog is fed while no model and no decoder stalls.

        Raises:
            ConfigurationError, RegistryError: see `__aenter__` and `register`.
        """
        if follow_parent:
            end_with_parent()
        self._service_manager = manager = service_manager or ServiceManager()
        async with self:
            # Before this line a signal ends the process at once: no client knows of it yet.
            signals = ShutdownSignals(follow_parent=follow_parent)
            side = self._require_running().side
            manager.status("registering")
            await signals.cancel_on_signal(self.register())  # a registry in trouble takes minutes
            async with manager.informed(self._status_line, side.engine_healthy):
                if side.state is WorkerState.READY:
                    manager.ready(self._status_line())
                await signals.wait()
                manager.stopping("draining")
                await self.leave()

    def _status_line(self) -> str:
        return status_line(self.instances, self._require_running().side.load())

    def _request_side(self, listener: socket.socket) -> AbstractAsyncContextManager[RequestSide]:
        parts = Parts(
            config=self._config,
            source=self._source,
            load=self._load,
            registry=self._registry,
            tls=self._tls,
            metrics=self._metrics,
            boot_id=self._boot_id,
            announce=self._announce,
        )
        if self._config.front_ends == 1:
            return serve_in_process(parts, listener)
        from fingerpost.worker.front_ends.supervisor import serve_by_front_ends

        return serve_by_front_ends(parts, listener, prepare=self._prepare)

    async def _remove_stale_entries(self) -> None:
        """Remove what is left of processes that had this address before; it is not necessary."""
        instances = self.instances
        if not instances or not await is_own_address(instances[0], self._config.tls):
            return
        try:
            for entry in await self._registry.remove_stale(instances[0]):
                logger.info("removed the entry %s of a process that had this address", entry)
        except RegistryError as error:
            logger.warning("entries of processes that had this address may remain: %s", error)

    def _registered(self) -> tuple[Instance, ...]:
        instances = self.instances
        return instances if self._signed is None else self._signed.sign(instances)

    async def _announce(self) -> None:
        if self._running is not None:
            await self._running.registrations.sync()

    def _require_running(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the worker has not started")
        return self._running


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """The parts of a worker that has started, and the address that clients are given."""

    host: str
    meta: dict[str, str]
    side: RequestSide
    registrations: Registrations


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
