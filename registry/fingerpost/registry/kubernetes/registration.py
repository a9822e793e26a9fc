"""An instance's Lease, kept there until it is deregistered."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from fingerpost.errors import RegistryUnreachable
from fingerpost.registry.engine_check import EngineCheck, HttpCheckConfig
from fingerpost.registry.registration import HeartbeatRegistration

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.kubernetes.leases import InstanceLeases
    from fingerpost.security.tls import TlsConfig

__all__ = ["KubernetesRegistration"]

logger = logging.getLogger(__name__)


class KubernetesRegistration(HeartbeatRegistration):
    """Keeps an instance's Lease; creates it again where somebody removed it.

    Nothing is written while nothing changes. The check that the Lease is there is answered from the
    API server's cache; only where that has none, its store is asked too.
    """

    def __init__(
        self,
        leases: InstanceLeases,
        instance: Instance,
        *,
        check: HttpCheckConfig | None,
        tls: TlsConfig | None = None,
        interval_s: float,
        call_timeout_s: float,
        rng: Random,
    ) -> None:
        super().__init__(instance, interval_s=interval_s, rng=rng)
        self._leases = leases
        self._call_timeout_s = call_timeout_s
        self._check = EngineCheck(instance, check, self._report, tls) if check is not None else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._marked = False

    def start(self) -> Self:
        """See `HeartbeatRegistration.start`; the engine's check starts too."""
        super().start()
        self._loop = asyncio.get_running_loop()
        if self._check is not None:
            self._check.start()
        return self

    async def stop(self) -> None:
        """See `HeartbeatRegistration.stop`; the engine's check ends too."""
        await super().stop()
        check, self._check = self._check, None
        if check is not None:
            await asyncio.to_thread(check.stop)

    def _report(self, sick: bool) -> None:  # noqa: FBT001 (the only argument)
        """Write or remove the mark; called by the check, in its thread.

        An event loop that hangs cannot write it. Then the pod's readinessProbe fails too.
        """
        if sick == self._marked:
            return
        if self._loop is None or self._loop.is_closed():
            raise RegistryUnreachable("the event loop has ended")
        marking = asyncio.run_coroutine_threadsafe(
            self._leases.mark_sick(self._instance.id, sick=sick), self._loop
        )
        try:
            marking.result(self._call_timeout_s)
        except BaseException:
            marking.cancel()
            raise
        self._marked = sick

    @property
    def _sick(self) -> bool:
        return self._check is not None and self._check.sick

    async def _send_update(self) -> None:
        updated = await self._leases.update(self._instance)
        if not updated and not self.draining:  # else it would come back as healthy
            await self._leases.put(self._instance, sick=self._sick)

    async def _send_drain(self, reason: str) -> None:
        await self._leases.drain(self._instance.id, reason)

    async def _send_undrain(self) -> None:
        if not await self._leases.drain(self._instance.id, None):
            await self._leases.put(self._instance, sick=self._sick)

    async def _remove(self) -> None:
        await self._leases.remove(self._instance.id)

    async def _check_entry(self) -> None:
        if self.draining:
            return
        instance_id = self._instance.id
        found = await self._leases.get(instance_id, cached=True)
        if found is None or found.instance != self._instance:
            found = await self._leases.get(instance_id)
        if found is None:
            self._count_reregistration("its Lease was removed")
            await self._leases.put(self._instance, sick=self._sick)
        elif found.instance != self._instance and not self.draining:
            logger.warning("registration %s: others changed its Lease; restoring it", instance_id)
            await self._leases.update(self._instance)
        elif found.sick != self._sick:
            await self._leases.mark_sick(instance_id, sick=self._sick)
