"""A registration that is kept alive: when its entry is checked, and which calls are retried.

A registry's own subclass implements the calls that write, check and remove the entry.
"""

from __future__ import annotations

import abc
import asyncio
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.backoff import EQUAL_JITTER, Backoff
from fingerpost.errors import InvalidInstance, RegistryError

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance

__all__ = ["HeartbeatRegistration"]

logger = logging.getLogger(__name__)

# The delays after failures. An agent that restarts is back in a second or two; with these its
# workers are registered again within 5 s of its death.
_BACKOFF: Final = Backoff(base_s=0.5, cap_s=4.0, jitter=EQUAL_JITTER)


class HeartbeatRegistration(abc.ABC):
    """Checks every `interval_s`, plus or minus a quarter, that the registry still has the entry.

    An entry that was lost is registered again, but never while draining: it would come back as
    healthy. Failures are retried with jittered back-off, logged once, and never raised.

    One lock orders the calls to the registry, so that a re-registration under way cannot overtake
    a drain or a deregistration. The abstract methods are called with the lock held.
    """

    def __init__(self, instance: Instance, *, interval_s: float, rng: Random) -> None:
        self._instance = instance
        self._interval_s = interval_s
        self._rng = rng
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._drain_reason: str | None = None
        self._drain_sent = False
        self._update_sent = True
        self._deregistered = False
        self._reregistrations = 0

    @property
    def instance(self) -> Instance:
        """The instance as registered."""
        return self._instance

    @property
    def reregistrations(self) -> int:
        """How often the registry had lost the entry, so that it was registered again."""
        return self._reregistrations

    @property
    def draining(self) -> bool:
        """Whether it is draining, also while the registry could not be called yet."""
        return self._drain_reason is not None

    def start(self) -> Self:
        """Begin to keep alive the entry, which was just registered; needs a running loop."""
        self._begin()
        return self

    async def update(self, instance: Instance) -> None:
        """Replace what is registered; see `Registration.update`.

        If the call to the registry fails, the background work goes on trying.

        Raises:
            InvalidInstance: it is another instance, or does not fit into the registry; what was
                registered before stays.
            RegistryError: the call to the registry failed.
        """
        before = self._instance
        if (instance.id, instance.service) != (before.id, before.service):
            raise InvalidInstance(
                f"{instance.service}/{instance.id} cannot replace {before.service}/{before.id}: "
                "register it as another instance"
            )
        async with self._lock:
            if instance == self._instance:
                return
            before, self._instance, self._update_sent = self._instance, instance, False
            try:
                await self._send_pending_update()
            except InvalidInstance:
                self._instance, self._update_sent = before, True
                raise

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list; its entry stays.

        If the call to the registry fails, the background work goes on trying.

        Raises:
            RegistryError: the call to the registry failed.
        """
        self._drain_reason = reason  # before the lock, so that no re-registration begins meanwhile
        # A check that hangs in a call holds the lock; it is cancelled, and begun again afterwards.
        running = await self._end()
        try:
            async with self._lock:
                await self._send_pending_drain()
        finally:
            if running:
                self._begin()

    async def undrain(self) -> None:
        """Put it back on the healthy list; register it again where the entry was lost.

        Raises:
            RegistryError: the call to the registry failed; the instance goes on draining.
        """
        async with self._lock:
            if not self._deregistered:
                await self._send_undrain()
                self._drain_reason = None
                self._drain_sent = False

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises:
            RegistryError: the call to the registry failed. The background work has ended all the
                same, the entry expires later, and a further call tries again.
        """
        await self.stop()  # before the lock, which a check that hangs in a call holds
        async with self._lock:
            if not self._deregistered:
                await self._remove()
                self._deregistered = True

    async def stop(self) -> None:
        """End the background work; the entry stays."""
        await self._end()

    def _begin(self) -> None:
        self._task = asyncio.create_task(
            self._keep_alive(), name=f"registration {self._instance.id}"
        )

    async def _end(self) -> bool:
        """End the background task; False where there was none."""
        task, self._task = self._task, None
        if task is None:
            return False
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return True

    @abc.abstractmethod
    async def _send_update(self) -> None:
        """Replace the entry in one step; do not restore a draining one that is gone."""

    @abc.abstractmethod
    async def _send_drain(self, reason: str) -> None:
        """Take the entry off the healthy list; one that is gone needs no call."""

    @abc.abstractmethod
    async def _send_undrain(self) -> None:
        """Put the entry back on the healthy list; register it again where it is gone."""

    @abc.abstractmethod
    async def _remove(self) -> None:
        """Remove the entry; one that is gone is not an error."""

    @abc.abstractmethod
    async def _check_entry(self) -> None:
        """Check that the entry is there, and restore it; called periodically."""

    async def _pause(self, delay_s: float) -> None:
        """Wait before the next check; a subclass may cut it short."""
        await asyncio.sleep(delay_s)

    def _count_reregistration(self, why: str) -> None:
        """Count and log that the entry is about to be registered again."""
        self._reregistrations += 1
        logger.warning("registration %s: %s; registering again", self._instance.id, why)

    async def _send_pending_drain(self) -> None:
        if self._drain_reason is not None and not self._deregistered:
            await self._send_drain(self._drain_reason)
            self._drain_sent = True

    async def _send_pending_update(self) -> None:
        if not self._deregistered:
            await self._send_update()
        self._update_sent = True

    async def _keep_alive(self) -> None:
        failures = 0
        while True:
            await self._pause(self._delay_s(failures))
            try:
                async with self._lock:
                    if not self._drain_sent:
                        await self._send_pending_drain()
                    if not self._update_sent:
                        await self._send_pending_update()
                    await self._check_entry()
            except RegistryError as error:
                if not failures:
                    logger.warning("registration %s: %s", self._instance.id, error)
                failures += 1
            except Exception:  # the worker goes on serving, and its entry is kept alive
                logger.exception("registration %s: unexpected error", self._instance.id)
                failures += 1
            else:
                if failures:
                    logger.info("registration %s: the registry answers again", self._instance.id)
                failures = 0

    def _delay_s(self, failures: int) -> float:
        if not failures:
            return self._interval_s * self._rng.uniform(0.75, 1.25)
        return _BACKOFF.delay_s(failures - 1, self._rng)
