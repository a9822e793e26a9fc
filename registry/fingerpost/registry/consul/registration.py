"""An instance's entry at a Consul agent, kept alive until it is deregistered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.errors import RegistryError
from fingerpost.registry.registration import HeartbeatRegistration

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fingerpost.registry.consul.agent import ConsulAgent
    from fingerpost.registry.instance import Instance

__all__ = ["ConsulRegistration"]

logger = logging.getLogger(__name__)

# Between the drain of an instance that leaves and its entry's removal: watchers wake in 2-7 ms.
_DRAIN_S: Final = 0.1
# The drain is optional: an agent in trouble must not double the time of a deregistration.
_DRAIN_DEADLINE_S: Final = 1.0
# Between two looks at the result of the agent's check; it is not needed for anything but the log.
_CHECKS_EVERY_S: Final = 5.0
_UNREACHABLE: Final = (
    "; the registry must reach %s: name another address with --advertise, or let the worker report "
    "its health itself with --check ttl"
)


class ConsulRegistration(HeartbeatRegistration):
    """Keeps the entry at the agent, and reports to a TTL check.

    The entry is registered again where the agent lost it: a development agent loses all entries
    when it restarts, and every agent removes an entry whose check failed for long.

    For a TTL check, this task sends the reports, every third of the TTL and as soon as the result
    of `healthy` changes. A draining instance goes on reporting: its entry would be removed
    otherwise.
    """

    def __init__(
        self,
        agent: ConsulAgent,
        instance: Instance,
        *,
        interval_s: float,
        rng: Random,
        healthy: Callable[[], bool] | None = None,
    ) -> None:
        heartbeat_s = agent.heartbeat_s
        super().__init__(
            instance,
            interval_s=interval_s if heartbeat_s is None else min(interval_s, heartbeat_s),
            rng=rng,
        )
        self._agent = agent
        self._healthy = healthy
        self._reported = True
        self._report_at = 0.0
        self._failing = False
        self._checked_at = -_CHECKS_EVERY_S

    def start(self) -> Self:
        """See `HeartbeatRegistration.start`."""
        self._has_reported(healthy=True)
        return super().start()

    async def deregister(self) -> None:
        """See `Registration.deregister`.

        An entry that only vanishes looks as if the agent had lost its memory, and watchers would
        probe the worker. Maintenance withdraws it at once, so it comes first.
        """
        if not self.draining and not self._deregistered:
            with contextlib.suppress(RegistryError, TimeoutError):
                async with asyncio.timeout(_DRAIN_DEADLINE_S):
                    await self.drain("leaving")
                    await asyncio.sleep(_DRAIN_S)
        await super().deregister()

    async def _send_update(self) -> None:
        if self.draining and not await self._agent.knows(self._instance.id):
            return  # it would come back as healthy
        await self._register()
        if self._report_due():
            await self._report()
        await self._agent.shown(self._instance)

    async def _send_drain(self, reason: str) -> None:
        await self._agent.maintenance(self._instance, enable=True, reason=reason)

    async def _send_undrain(self) -> None:
        if not await self._agent.maintenance(self._instance, enable=False):
            await self._register()

    async def _remove(self) -> None:
        await self._agent.deregister(self._instance)

    async def _check_entry(self) -> None:
        if self.draining and not self._report_due():
            return
        if await self._agent.knows(self._instance.id):
            if self._report_due():
                await self._report()
            await self._log_failing_check()
        elif not self.draining:
            self._count_reregistration("the agent lost its entry")
            await self._register()

    async def _log_failing_check(self) -> None:
        """Log when the agent's check of this worker begins to fail, and when it passes again."""
        now = asyncio.get_running_loop().time()
        if self._agent.heartbeat_s is not None or now - self._checked_at < _CHECKS_EVERY_S:
            return
        self._checked_at = now
        try:
            check = await self._agent.failing_check(self._instance)
        except RegistryError as error:  # it is for the log only
            logger.debug("registration %s: %s", self._instance.id, error)
            return
        if check is None and self._failing:
            logger.info("registration %s: its check passes again", self._instance.id)
        elif check is not None and not self._failing:
            logger.warning(
                "registration %s: its check fails, so that clients are not sent here: %s%s",
                self._instance.id,
                check.output[:300],
                "" if check.withdraws else _UNREACHABLE % self._instance.url,
            )
        self._failing = check is not None

    async def _register(self) -> None:
        await self._agent.register(self._instance)
        self._has_reported(healthy=True)

    async def _report(self) -> None:
        healthy = self._is_healthy()
        await self._agent.report(self._instance.id, healthy=healthy)
        self._has_reported(healthy=healthy)

    def _report_due(self) -> bool:
        if self._agent.heartbeat_s is None:
            return False
        now = asyncio.get_running_loop().time()
        return now >= self._report_at or self._is_healthy() != self._reported

    def _has_reported(self, *, healthy: bool) -> None:
        self._reported = healthy
        heartbeat_s = self._agent.heartbeat_s or 0.0
        self._report_at = asyncio.get_running_loop().time() + heartbeat_s

    def _is_healthy(self) -> bool:
        return self._healthy is None or self._healthy()
