"""The entries of a worker in the registry, one for each model that it serves."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from fingerpost.basics.backoff import EQUAL_JITTER, Backoff
from fingerpost.errors import (
    FingerpostError,
    InvalidInstance,
    NotARegistry,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry import Instance, Registration, Registry

__all__ = ["Registrations", "wait_for_registry"]

logger = logging.getLogger(__name__)

# The pauses between two tries to register.
_BACKOFF: Final = Backoff(base_s=0.25, cap_s=4.0, jitter=EQUAL_JITTER)
# The pause between two lines in the log about a registry that does not answer.
_LOG_EVERY_S: Final = 5.0


async def wait_for_registry(
    registry: Registry, wait_s: float, *, hint: str = "", rng: random.Random | None = None
) -> None:
    """Wait until the registry answers, with a line in the log every 5 s.

    A registry that answers, but with an error, does not stop the start: see `register`.

    Args:
        registry: the registry.
        wait_s: the longest wait; infinite, or 0 to try once.
        hint: what to do, at the end of each line.
        rng: the random source of the pauses between the attempts.

    Raises:
        RegistryDenied: it refuses access; raised at once.
        NotARegistry: another server answers there; raised at once.
        RegistryUnreachable: no answer for `wait_s`.
    """
    began = time.monotonic()
    attempt, logged_at = 0, -_LOG_EVERY_S
    while True:
        try:
            await registry.catalog()
        except RegistryUnreachable as error:
            waited_s = time.monotonic() - began
            delay_s = _BACKOFF.delay_s(attempt, rng or random.Random())
            if waited_s + delay_s > wait_s:
                raise
            if waited_s - logged_at >= _LOG_EVERY_S:
                logged_at = waited_s
                logger.warning("waiting for the registry: %s%s", error, hint)
            await asyncio.sleep(delay_s)
            attempt += 1
        except (RegistryDenied, NotARegistry):
            raise
        except RegistryError as error:
            logger.warning("the registry answers with an error, starting all the same: %s", error)
            return
        else:
            if attempt:
                logger.info("the registry answers")
            return


class Registrations:
    """The entries of a worker: each model is a service, and the worker an instance of it.

    Args:
        registry: where the entries are recorded.
        wanted: returns the instances as they should be now.
        healthy: see `Registry.register`.
        lease_s: seconds for which the entry of a model that is no longer served stays, drained.
        rng: the random source of the pauses between attempts to register.
    """

    def __init__(
        self,
        registry: Registry,
        wanted: Callable[[], tuple[Instance, ...]],
        *,
        healthy: Callable[[], bool],
        lease_s: float,
        rng: random.Random | None = None,
    ) -> None:
        self._registry = registry
        self._wanted = wanted
        self._healthy = healthy
        self._lease_s = lease_s
        self._rng = rng or random.Random()
        self._entries: dict[str, Registration] = {}
        self._leaving: dict[str, tuple[Registration, float]] = {}
        self._lock = asyncio.Lock()
        self._following = False
        self._trouble = ""
        self._forgotten = 0

    @property
    def reregistrations(self) -> int:
        """How often the registry had lost an entry that was then registered again."""
        return self._forgotten + sum(each.reregistrations for each in self._all())

    async def register(self, timeout_s: float, *, unreachable_s: float = 0.0) -> None:
        """Register all instances; from here on, `sync` sends changes.

        If the registry fails (an election takes up to 20 s), it is tried again with growing,
        jittered pauses.

        Args:
            timeout_s: seconds of trying.
            unreachable_s: the same while the registry cannot be reached at all, if it is more.

        Raises:
            RegistryDenied: this worker is not allowed to register; raised at once.
            RegistryError: the last failure, after `timeout_s`.
        """
        began = time.monotonic()
        failures = 0
        self._following = True
        while True:
            try:
                async with self._lock:
                    return await self._sync()
            except RegistryDenied:
                raise
            except RegistryError as error:
                down = isinstance(error, RegistryUnreachable)
                limit_s = max(timeout_s, unreachable_s) if down else timeout_s
                if time.monotonic() + _BACKOFF.nominal_s(failures) > began + limit_s:
                    raise
                logger.warning("not registered yet: %s", error)
                await asyncio.sleep(_BACKOFF.delay_s(failures, self._rng))
                failures += 1

    async def sync(self) -> None:
        """Send all changes to the registry; what failed is tried again by the next call."""
        if not self._following:
            return
        async with self._lock:
            try:
                await self._sync()
            except FingerpostError as error:
                if str(error) != self._trouble:
                    logger.warning(
                        "the registry does not list everything that is served: %s", error
                    )
                self._trouble = str(error)
            else:
                self._trouble = ""

    async def drain(self, reason: str) -> None:
        """Mark all entries as draining; `sync` does nothing from here on."""
        self._following = False
        async with self._lock:  # waits for an entry that is being registered
            results = await asyncio.gather(
                *(entry.drain(reason) for entry in self._entries.values()), return_exceptions=True
            )
        _warn(results, "drain")

    async def deregister(self) -> None:
        """Remove all entries; `sync` does nothing from here on."""
        self._following = False
        async with self._lock:
            results = await asyncio.gather(
                *(entry.deregister() for entry in self._all()), return_exceptions=True
            )
        _warn(results, "removal")

    def _all(self) -> list[Registration]:
        return [*self._entries.values(), *(entry for entry, _ in self._leaving.values())]

    async def _sync(self) -> None:
        wanted = {instance.service: instance for instance in self._wanted()}
        trouble: FingerpostError | None = None
        for service, instance in wanted.items():
            try:
                await self._apply(service, instance)
            except (InvalidInstance, RegistryError) as error:
                trouble = error
        now = time.monotonic()
        for service in self._entries.keys() - wanted.keys():
            entry = self._entries.pop(service)
            self._leaving[service] = entry, now + self._lease_s
            try:
                await entry.drain("no longer served")
            except RegistryError as error:  # the entry goes on trying by itself
                trouble = error
        for service, (entry, leaves_at) in list(self._leaving.items()):
            if now >= leaves_at:
                await entry.deregister()
                self._forgotten += entry.reregistrations
                del self._leaving[service]
        if trouble is not None:
            raise trouble

    async def _apply(self, service: str, instance: Instance) -> None:
        if service in self._leaving:  # it is served again
            await self._leaving[service][0].undrain()
            self._entries[service], _ = self._leaving.pop(service)
        entry = self._entries.get(service)
        if entry is None:
            self._entries[service] = await self._registry.register(instance, healthy=self._healthy)
        elif entry.instance != instance:
            await entry.update(instance)


def _warn(results: list[BaseException | None], what: str) -> None:
    for result in results:
        if isinstance(result, RegistryError):
            logger.warning("the registry did not accept the %s of an entry: %s", what, result)
        elif result is not None:
            raise result
