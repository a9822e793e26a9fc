"""An instance's entry at a Consul agent, kept alive until it is deregistered."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.registry.errors import RegistryError

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.consul_agent import ConsulAgent
    from fingerpost.registry.instance import Instance

__all__ = ["ConsulRegistration"]

logger = logging.getLogger(__name__)

# The delay after the first failure and the longest one, in seconds. An agent that restarts is back
# in a second or two; with these its workers are registered again within 5 s of its death.
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 4.0


class ConsulRegistration:
    """Looks every `interval_s`, give or take a quarter, whether the agent still has the entry.

    A development agent that restarts forgets everything, and every agent removes an entry whose
    check failed for long. Such an entry is registered again, but never while draining: it would
    come back as healthy.

    One lock orders what is said to the agent, so that a re-registration under way cannot overtake
    a drain or a deregistration.
    """

    def __init__(
        self, agent: ConsulAgent, instance: Instance, *, interval_s: float, rng: Random
    ) -> None:
        self._agent = agent
        self._instance = instance
        self._interval_s = interval_s
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
        """Begin to keep the entry alive; needs a running loop."""
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
            if not await self._agent.maintenance(self._instance.id, enable=False):
                await self._agent.register(self._instance)
            self._draining = self._drain_told = False

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises:
            RegistryError: the agent could not be told. The background work has ended all the same,
                the agent's check removes the entry later, and a further call tries again.
        """
        async with self._lock:
            await self.stop()
            if not self._deregistered:
                await self._agent.deregister(self._instance.id)
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
        await self._agent.maintenance(self._instance.id, enable=True, reason=self._drain_reason)
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
            if self._draining:
                if not self._drain_told:
                    await self._tell_drain()
            elif not await self._agent.knows(self._instance.id) and not self._draining:
                logger.warning(
                    "registration %s: the registry forgot it; registering again", self._instance.id
                )
                await self._agent.register(self._instance)
