"""One worker process from its start to its leaving."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import re
import secrets
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from aiohttp import web

from fingerpost.registry import (
    ConfigurationError,
    Instance,
    ModelInfo,
    Registration,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
    WorkerState,
    open_registry,
)
from fingerpost.registry.web import bind, serve
from fingerpost.worker.engine import Engine
from fingerpost.worker.host import ServedVersion, SingleModel
from fingerpost.worker.metrics import WorkerMetrics
from fingerpost.worker.service import WorkerService

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.modelfiles import ModelFiles

__all__ = ["Worker", "check_labels", "reachable_host"]

logger = logging.getLogger(__name__)

# The first host of a registry's URL; ZooKeeper's may have several.
_FIRST_HOST = re.compile(r"[a-z+]+://(?:[^@/]*@)?(\[[^\]]+\]|[^:,/?]+)", re.IGNORECASE)
# The first and the longest pause between two tries to register, in seconds.
_PAUSES_S = (0.25, 4.0)


class Worker:
    """Loads, warms up, listens, registers, and leaves again, in this order.

    ::

        async with Worker(files, load, config) as worker:  # loaded, warmed up, listening
            await worker.register()                        # now clients find it
            await stop.wait()
            await worker.leave()                           # drained

    Args:
        files: the model on disk.
        load: makes the backend from it; called in a thread.
        config: see `WorkerConfig`.
    """

    def __init__(
        self, files: ModelFiles, load: Callable[[ModelFiles], Backend], config: WorkerConfig
    ) -> None:
        self._files = files
        self._load = load
        self._config = config
        self._registry = open_registry(config.registry, config.access)
        self._metrics = WorkerMetrics()
        self._registration: Registration | None = None
        self._runner: web.AppRunner | None = None
        self._engine: Engine | None = None
        self._service: WorkerService | None = None
        self._instance: Instance | None = None

    @property
    def instance(self) -> Instance:
        """What is, or will be, registered; only after the start."""
        if self._instance is None:
            raise RuntimeError("the worker has not started")
        return self._instance

    async def __aenter__(self) -> Self:
        """Load and warm up the model, and listen.

        Raises:
            ConfigurationError: a port in use, a model that cannot be loaded or run, labels that do
                not fit it.
            RegistryError: the registry cannot be reached; told before the model is loaded.
        """
        listener = bind(self._config.host, self._config.port)
        try:
            await self._find_registry()
            backend = await asyncio.to_thread(self._load, self._files)
            self._engine = Engine(
                backend,
                limits=self._config.limits,
                max_batch=self._config.max_batch,
                max_queue=self._config.max_queue,
                decode_threads=self._config.decode_threads,
                metrics=self._metrics,
            )
            classes = await asyncio.to_thread(self._engine.warm_up)
            labels = check_labels(self._files, classes)
            self._instance = self._describe(backend, listener.getsockname()[1])
            served = ServedVersion(
                model=self._files.name,
                version=self._files.version,
                labels=labels,
                engine=self._engine,
            )
            self._service = WorkerService(
                SingleModel(served),
                boot_id=self._instance.boot_id,
                config=self._config,
                metrics=self._metrics,
            )
            self._runner = web.AppRunner(
                self._service.app(), access_log=None, handle_signals=False, shutdown_timeout=1.0
            )
            await self._runner.setup()
            await serve(self._runner, listener)
        except BaseException:
            listener.close()
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and free everything, without waiting for requests in flight."""
        if self._registration is not None:
            try:
                await self._registration.deregister()
            except RegistryError as error:
                logger.warning("the registry could not be told that this worker ends: %s", error)
        if self._runner is not None:
            await self._runner.cleanup()
        if self._engine is not None:
            await self._engine.aclose()
        await self._registry.aclose()

    async def register(self) -> None:
        """Let clients find this worker.

        A registry in trouble (an election takes up to 20 s) is asked again with growing, jittered
        pauses, for `register_timeout_s`.

        Raises:
            RegistryDenied: this worker may not register; at once.
            RegistryError: the last failure, when the time is over.
        """
        assert self._service is not None  # noqa: S101 - set by the start
        until = time.monotonic() + self._config.register_timeout_s
        pause_s = _PAUSES_S[0]
        while self._registration is None:
            try:
                self._registration = await self._registry.register(
                    self.instance, healthy=self._service.engine_well
                )
            except RegistryDenied:
                raise
            except RegistryError as error:
                if time.monotonic() + pause_s > until:
                    raise
                logger.warning("not registered yet: %s", error)
                await asyncio.sleep(random.uniform(pause_s / 2, pause_s))
                pause_s = min(_PAUSES_S[1], pause_s * 2)
        registration = self._registration
        self._metrics.reregistrations.set_function(lambda: registration.reregistrations)
        self._service.admission.state = WorkerState.READY
        logger.info("ready at %s as %s", self.instance.url, self.instance.id)

    async def _find_registry(self) -> None:
        """Fail before the model is loaded if the registry is not there or does not let us in.

        One that answers, but cannot serve now, is no reason to give up: see `register`.
        """
        try:
            await self._registry.catalog()
        except (RegistryUnreachable, RegistryDenied):
            raise
        except RegistryError as error:
            logger.warning("the registry is in trouble, going on: %s", error)

    async def leave(self) -> None:
        """Drain: tell the registry, serve on while an answer may be held, finish what is here."""
        assert self._service is not None  # noqa: S101 - set by the start
        admission, config = self._service.admission, self._config
        logger.info("leaving: no new work after %g s", config.lease_s)
        admission.state = WorkerState.DRAINING
        if self._registration is not None:
            try:
                await self._registration.drain("leaving")
            except RegistryError as error:
                logger.warning("the registry could not be told of the drain: %s", error)
        await asyncio.sleep(config.lease_s)
        admission.refusing = True
        if not await admission.idle(config.drain_timeout_s):
            logger.warning(
                "%d requests still in flight after %g s: leaving all the same",
                admission.rif,
                config.drain_timeout_s,
            )

    def _describe(self, backend: Backend, port: int) -> Instance:
        config, files = self._config, self._files
        host = config.advertise or reachable_host(config.host, config.registry)
        nonce = secrets.token_hex(4)
        wanted = backend.input
        return Instance(
            id=f"{files.name}-{host.replace(':', '-').strip('-')}-{port}-{nonce}",
            service=files.name,
            host=host,
            ports={"http": port},
            models=(ModelInfo(name=files.name, versions=(files.version,)),),
            weight=config.weight,
            zone=config.zone,
            boot_id=secrets.randbits(53),
            meta={
                "framework": backend.framework,
                "device": backend.device,
                "image": "any"
                if wanted.encoded
                else f"{wanted.height}x{wanted.width}x{wanted.channels}",
                "fingerpost": version("fingerpost"),
            },
        )


def check_labels(files: ModelFiles, classes: int) -> tuple[str, ...]:
    """The labels for `classes` scores; the classes' numbers where the model has no labels file.

    Raises:
        ConfigurationError: another number of labels than scores.
    """
    if not files.labels:
        logger.warning(
            "model %s has no labels file: answers name classes 0 to %d", files.name, classes - 1
        )
        return tuple(str(number) for number in range(classes))
    if len(files.labels) != classes:
        raise ConfigurationError(
            f"model {files.name} gives {classes} scores, but its labels file has "
            f"{len(files.labels)} lines: give the file it was trained with (--labels)"
        )
    return files.labels


def reachable_host(host: str, registry: str) -> str:
    """The address to give to clients when listening on `host`: `host` itself, if it is one.

    On a wildcard it is the address that faces the registry, or where that is on this machine, as
    Consul's agent is, the one that faces the rest of the world.

    Raises:
        ConfigurationError: this machine has no such address.
    """
    if not _is(host, "is_unspecified"):
        return host
    match = _FIRST_HOST.match(registry)
    target = match[1].strip("[]") if match else "localhost"
    if target == "localhost" or _is(target, "is_loopback"):
        # Addresses for documentation (RFC 5737, RFC 3849), so that the default route decides.
        target = "2001:db8::1" if ":" in host else "192.0.2.1"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((target, 9))  # chooses a route, and sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigurationError(
            f"cannot tell which address of this machine clients reach ({error.strerror}): "
            "name it with --advertise"
        ) from error


def _is(host: str, what: str) -> bool:
    try:
        return bool(getattr(ipaddress.ip_address(host), what))
    except ValueError:
        return False
