"""The life of a sidecar: start, wait, register, watch, drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Final

from fingerpost.basics.service_manager import ServiceManager
from fingerpost.deploy.sidecar.front import Front, LoadPoint
from fingerpost.deploy.sidecar.health import HealthCheck
from fingerpost.deploy.sidecar.server_load import ServerLoad
from fingerpost.deploy.sidecar.server_process import ServerProcess
from fingerpost.errors import FingerpostError, InvalidInstance, RegistryDenied, RegistryError
from fingerpost.registry import WorkerState, open_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from fingerpost.deploy.sidecar.config import SidecarConfig
    from fingerpost.registry import Instance, Registration, Registry
    from fingerpost.worker.signed_instances import SignedInstances

__all__ = ["Sidecar"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_SIGN_EVERY_S: Final = 10.0
_SIGNATURE_LIFE_S: Final = 86_400.0


class Sidecar:
    """Keeps the entry of a foreign server in the registry for as long as it is well.

    The registry's own check asks the server, so that a sidecar that is killed does no harm. With
    `check=tcp` this process reports the health instead.

    Args:
        config: see there.
        manager: is told what the sidecar does; None means no service manager.
    """

    def __init__(self, config: SidecarConfig, manager: ServiceManager | None = None) -> None:
        self._config = config
        self._manager = manager or ServiceManager()
        self._server = ServerProcess(config.command)
        self._health = HealthCheck(config)
        self._point: LoadPoint | None = None
        self._signing: SignedInstances | None = None
        self._load: ServerLoad | None = None
        if config.front is not None:
            self._point = Front(config.host, config.port, config.slots)
        elif config.load is not None:
            self._load = ServerLoad(config)
            self._point = LoadPoint(lambda: self._load.requests if self._load else 0, config.slots)

    async def run(self, stopped: Callable[[], Awaitable[object]]) -> None:
        """Serve until `stopped` returns, then drain.

        Raises:
            FingerpostError: the server cannot be started, ended by itself, or does not answer as
                configured. Its entry is removed then.
        """
        stopping = asyncio.create_task(_wait(stopped), name="signals")
        try:
            self._manager.status(f"waiting for {self._config.service} to answer")
            await self._server.start()
            if not await self._before(stopping, self._health.until_ready(self._server)):
                return
            async with self._listening() as instance, self._registry() as registry:
                registered = await self._registered(registry, instance, stopping)
                if registered is None:
                    return
                logger.info("registered %s at %s", instance.id, instance.address)

                def status() -> str:
                    health = "" if self._health.healthy else ", which is not healthy"
                    return f"{instance.service} at {instance.address} is registered{health}"

                self._manager.ready(status())
                # The watchdog looks after this process: the server's health is the registry's.
                async with self._manager.informed(status, lambda: True):
                    problem = await self._watch(registered, stopping)
                self._manager.stopping(f"{instance.service} drains")
                await self._leave(registered)
                if problem:
                    raise FingerpostError(f"{problem}: its entry was removed")
        finally:
            stopping.cancel()
            await asyncio.gather(stopping, return_exceptions=True)
            await self._server.stop(self._config.grace_s)

    async def _before(self, stopping: asyncio.Task[None], work: Awaitable[None]) -> bool:
        """Await the work; False if a signal came first. Raises what the work raises."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((stopping, task), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[Instance]:
        config, point = self._config, self._point
        nonce = secrets.token_hex(4)
        if point is None:
            yield config.instance(config.port, nonce=nonce)
            return
        host = "::" if ":" in config.client_host else config.client_host
        port = await point.start(host, config.load_port if config.front is None else config.front)
        try:
            client_port = config.port if config.front is None else port
            yield config.instance(client_port, load_port=port, nonce=nonce)
        finally:
            await point.aclose()

    @contextlib.asynccontextmanager
    async def _registry(self) -> AsyncIterator[Registry]:
        registry = open_registry(self._config.registry, self._config.access())
        try:
            yield registry
        finally:
            await registry.aclose()

    async def _registered(
        self, registry: Registry, instance: Instance, stopping: asyncio.Task[None]
    ) -> Registration | None:
        """Register, again and again while the registry does not answer; None after a signal."""
        logged = False
        signed = self._signed(instance)
        while not stopping.done():
            try:
                return await registry.register(signed, healthy=lambda: self._health.healthy)
            except (RegistryDenied, InvalidInstance):
                raise
            except RegistryError as error:
                if not logged:
                    logger.warning("not registered yet, trying again: %s", error)
                logged = True
            if self._server.problem:
                raise FingerpostError(self._server.problem)
            await asyncio.wait((stopping,), timeout=_RETRY_S)
        return None

    def _signed(self, instance: Instance) -> Instance:
        if self._config.registration_key is None:
            return instance
        if self._signing is None:
            # Imported late: what proves workers is an extra.
            from fingerpost.worker.signed_instances import SignedInstances

            self._signing = SignedInstances(self._config.registration_key, life_s=_SIGNATURE_LIFE_S)
        return self._signing.sign((instance,))[0]

    async def _watch(self, registration: Registration, stopping: asyncio.Task[None]) -> str:
        """Wait for a signal, or for the end of the server: how it ended."""
        ended = asyncio.create_task(self._server.ended(), name="server's end")
        tasks = [asyncio.create_task(self._health.run(), name="health")]
        if self._load is not None:
            tasks.append(asyncio.create_task(self._load.run(), name="load"))
        if self._config.registration_key is not None:
            tasks.append(asyncio.create_task(self._sign(registration), name="signatures"))
        try:
            await asyncio.wait((stopping, ended), return_when=asyncio.FIRST_COMPLETED)
            return ended.result() if ended.done() else ""
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.gather(ended, *tasks, return_exceptions=True)

    async def _sign(self, registration: Registration) -> None:
        from msgspec import UNSET, structs

        while True:
            await asyncio.sleep(_SIGN_EVERY_S)
            bare = structs.replace(registration.instance, signature=UNSET)
            with contextlib.suppress(RegistryError):  # the registration goes on trying
                await registration.update(self._signed(bare))

    async def _leave(self, registration: Registration) -> None:
        """Remove the entry; wait for clients that know it, and for what is in flight."""
        if self._point is not None:
            self._point.state = WorkerState.DRAINING
        try:
            await registration.deregister()
        except RegistryError as error:
            logger.warning("the entry is left to the registry's check: %s", error)
        if self._server.problem:
            return
        logger.info("draining for %g s", self._config.lease_s)
        await asyncio.sleep(self._config.lease_s)
        if isinstance(self._point, Front):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.grace_s):
                    await self._point.idle()


async def _wait(stopped: Callable[[], Awaitable[object]]) -> None:
    await stopped()
