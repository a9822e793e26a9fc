"""An instance's entry at a Consul agent, kept alive until it is deregistered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.registry.errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fingerpost.registry.consul_agent import ConsulAgent
    from fingerpost.registry.instance import Instance

__all__ = ["ConsulRegistration"]

logger = logging.getLogger(__name__)

# The delay after the first failure and the longest one, in seconds. An agent that restarts is back
# in a second or two; with these its workers are registered again within 5 s of its death.
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 4.0
# Between the word that an instance leaves and its entry's removal: watchers wake in 2-7 ms.
_WORD_S: Final = 0.1


class ConsulRegistration:
    """Looks every `interval_s`, give or take a quarter, whether the agent still has the entry.

    A development agent that restarts forgets everything, and every agent removes an entry whose
    check failed for long. Such an entry is registered again, but never while draining: it would
    come back as healthy.

    Where the agent waits for reports (a TTL check), this task sends them, every third of the TTL
    and as soon as `healthy` changes its mind. A draining instance goes on reporting: its entry
    would be removed otherwise.

    One lock orders what is said to the agent, so that a re-registration under way cannot overtake
    a drain or a deregistration.
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
        self._agent = agent
        self._instance = instance
        self._interval_s = interval_s if agent.beat_s is None else min(interval_s, agent.beat_s)
        self._healthy = healthy
        self._reported = True
        self._report_at = 0.0
        self._rng = rng
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._draining = False
        self._drain_reason = ""
        self._drain_told = False
        self._deregistered = False

    @property
    def instance(self) -> Instance:
        """What was registered."""
        return self._instance

    def start(self) -> Self:
        """Begin to keep the entry alive, just registered; needs a running loop."""
        self._has_reported(healthy=True)
        self._task = asyncio.create_task(
            self._keep_alive(), name=f"registration {self._instance.id}"
        )
        return self

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list, its entry staying (maintenance mode).

        If the agent cannot be told now, it raises, and the background work goes on trying.

        Raises:
            RegistryError: the agent could not be told.
        """
        self._draining = True  # before the lock, so that no re-registration begins meanwhile
        self._drain_reason = reason
        async with self._lock:
            await self._tell_drain()

    async def undrain(self) -> None:
        """Put it back on the healthy list, registering it anew where it was forgotten.

        Raises:
            RegistryError: the agent could not be told; the instance goes on draining.
        """
        async with self._lock:
            if self._deregistered:
                return
            if not await self._agent.maintenance(self._instance, enable=False):
                await self._register()
            self._draining = self._drain_told = False

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises:
            RegistryError: the agent could not be told. The background work has ended all the same,
                the agent's check removes the entry later, and a further call tries again.
        """
        if not self._draining and not self._deregistered:
            # An entry that just vanishes looks as if the agent had lost its memory, and watchers
            # would ask the worker itself. Maintenance is a word that they believe at once.
            with contextlib.suppress(RegistryError):
                await self.drain("leaving")
                await asyncio.sleep(_WORD_S)
        async with self._lock:
            await self.stop()
            if not self._deregistered:
                await self._agent.deregister(self._instance)
                self._deregistered = True

    async def stop(self) -> None:
        """End the background work; the entry stays."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _tell_drain(self) -> None:
        if self._deregistered:
            return
        # No such entry means that it is off the list already.
        await self._agent.maintenance(self._instance, enable=True, reason=self._drain_reason)
        self._drain_told = True

    async def _keep_alive(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(self._delay_s(failures))
            try:
                await self._beat()
            except RegistryError as error:
                if not failures:
                    logger.warning("registration %s: %s", self._instance.id, error)
                failures += 1
            except Exception:  # the worker goes on serving, and the entry being kept
                logger.exception("registration %s: unexpected error", self._instance.id)
                failures += 1
            else:
                if failures:
                    logger.info("registration %s: the registry answers again", self._instance.id)
                failures = 0

    def _delay_s(self, failures: int) -> float:
        if not failures:
            return self._interval_s * self._rng.uniform(0.75, 1.25)
        ceiling = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2.0 ** min(failures, 16))
        return ceiling * self._rng.uniform(0.5, 1.0)

    async def _beat(self) -> None:
        async with self._lock:
            if self._draining and not self._drain_told:
                await self._tell_drain()
            if self._draining and not self._report_due():
                return
            if await self._agent.knows(self._instance.id):
                if self._report_due():
                    await self._report()
            elif not self._draining:
                logger.warning(
                    "registration %s: the registry forgot it; registering again", self._instance.id
                )
                await self._register()

    async def _register(self) -> None:
        await self._agent.register(self._instance)
        self._has_reported(healthy=True)

    async def _report(self) -> None:
        healthy = self._is_healthy()
        await self._agent.report(self._instance.id, healthy=healthy)
        self._has_reported(healthy=healthy)

    def _report_due(self) -> bool:
        if self._agent.beat_s is None:
            return False
        now = asyncio.get_running_loop().time()
        return now >= self._report_at or self._is_healthy() != self._reported

    def _has_reported(self, *, healthy: bool) -> None:
        self._reported = healthy
        beat_s = self._agent.beat_s or 0.0
        self._report_at = asyncio.get_running_loop().time() + beat_s

    def _is_healthy(self) -> bool:
        return self._healthy is None or self._healthy()
