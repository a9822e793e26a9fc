"""Lookups of a model that has no worker, held until its first worker is up.

So a model may have no worker while nobody uses it: what waits here is what an autoscaler starts a
worker for (`GET /v1/load/{service}`), and clients without a library only see a slow answer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from fingerpost.errors import NoWorker

if TYPE_CHECKING:
    from collections.abc import Collection

    from aiohttp import web

    from fingerpost.proxy.directory import Directory
    from fingerpost.proxy.probes import LoadProbes

__all__ = ["StartHolds"]

# How often it is looked whether the client is still there.
_LOOK_EVERY_S: Final = 1.0
# How often a worker is looked at that is up, but that no probe has verified yet.
_VERIFY_EVERY_S: Final = 0.1
_RETRY_AFTER_S: Final = 5.0


class StartHolds:
    """Holds a limited number of lookups; further ones are refused at once.

    Args:
        directory: the snapshots that lookups wait for.
        probes: knows which workers may be named.
        hold_s: longest time that a lookup is held, in seconds; 0 holds none.
        most: most lookups held at once.
        expected: services that may have no worker.

    Attributes:
        hold_s: as given.
        held: by service, how many lookups are held now.
        refused: how many lookups were refused because too many were held.
    """

    def __init__(
        self,
        directory: Directory,
        probes: LoadProbes,
        *,
        hold_s: float,
        most: int,
        expected: Collection[str] = (),
    ) -> None:
        self._directory = directory
        self._probes = probes
        self._most = most
        self._expected = frozenset(expected)
        self.hold_s = hold_s
        self.held: Counter[str] = Counter()
        self.refused = 0

    def starts_on_demand(self, service: str) -> bool:
        """Whether a service without a worker is as it should be: its lookups are held."""
        return bool(self.hold_s) and service in self._expected

    def waits_for(self, service: str) -> bool:
        """Whether a lookup of this service would be held: it is known, and has no worker."""
        if not self.hold_s or service not in self._directory.watches():
            return False
        return not self._usable(service)

    async def first_worker(
        self, service: str, request: web.Request, within_s: float = math.inf
    ) -> None:
        """Return when the service has a worker, the time is over, or the client has gone.

        Raises:
            NoWorker: too many lookups are held.
            UnknownService, RegistryError: see `Directory.resolve`.
        """
        if self.held.total() >= self._most:
            self.refused += 1
            raise NoWorker(
                f"no worker serves {service!r} now, and {self._most} lookups are held already: "
                f"try again in {_RETRY_AFTER_S:g} s",
                retry_after_s=_RETRY_AFTER_S,
            )
        clock = asyncio.get_running_loop().time
        end = clock() + min(within_s, self.hold_s)
        self.held[service] += 1
        try:
            while not self._usable(service) and _connected(request) and clock() < end:
                snapshot = await self._directory.resolve(service)
                if snapshot.instances:  # not verified yet
                    await asyncio.sleep(_VERIFY_EVERY_S)
                    continue
                wait_s = min(_LOOK_EVERY_S, end - clock())
                began = clock()
                seen = await self._directory.resolve(service, index=snapshot.index, wait_s=wait_s)
                if seen.index == snapshot.index and clock() - began < wait_s / 2:
                    return  # holds were ended: this proxy leaves, or who may ask has changed
        finally:
            # The image is on its way now, and no probe has seen one: the worker is not unused.
            self._probes.demand.used(service, time.monotonic())
            self.held[service] -= 1
            if not self.held[service]:
                del self.held[service]

    def _usable(self, service: str) -> bool:
        snapshot = self._directory.snapshot(service)
        return snapshot is not None and bool(self._probes.accepting_instances(snapshot.instances))


def _connected(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and not transport.is_closing()
