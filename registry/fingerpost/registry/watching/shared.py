"""One watch for each service, and one of their list, shared by all that ask for them."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import TYPE_CHECKING

from fingerpost.errors import RegistryError
from fingerpost.registry.names import check_service

if TYPE_CHECKING:
    from fingerpost.registry.snapshot import Catalog, Snapshot
    from fingerpost.registry.watching.watch import Watch

__all__ = ["SharedWatches", "WatchingRegistry"]


class SharedWatches:
    """One watch for each service, however many callers it has; it implements `Registry.watch`.

    Args:
        make: makes the watch of a service, not yet started.
        limit: most watches that run at once; each holds a connection to the registry.
    """

    def __init__(self, make: Callable[[str], Watch[Snapshot]], *, limit: int) -> None:
        self._make = make
        self._limit = limit
        self._watches: dict[str, Watch[Snapshot]] = {}
        self._uses: dict[str, int] = {}

    def watch(self, service: str) -> Watch[Snapshot]:
        """See `Registry.watch`.

        Raises:
            RegistryError: `limit` services are being watched already.
        """
        watch = self._watches.get(service)
        if watch is None:
            # A closed watch no longer holds a connection.
            running = {name: each for name, each in self._watches.items() if each.running}
            self._watches = running
            self._uses = {name: self._uses[name] for name in running}
            if len(running) >= self._limit:
                raise RegistryError(
                    f"cannot watch {service!r}: {self._limit} services are being watched already; "
                    "release those that are no longer needed"
                )
            watch = self._watches[service] = self._make(service)
        self._uses[service] = self._uses.get(service, 0) + 1
        return watch.start()

    async def release(self, service: str) -> None:
        """See `Registry.release`."""
        uses = self._uses.get(service, 0)
        if uses > 1:
            self._uses[service] = uses - 1
        elif uses == 1:
            del self._uses[service]
            await self._watches.pop(service).aclose()

    async def aclose(self) -> None:
        """End all watches."""
        for watch in self._watches.values():
            await watch.aclose()


class WatchingRegistry(abc.ABC):
    """The watches of a registry: the part of `Registry` that is the same in all of them.

    Args:
        max_watches: most services that are watched at once.
    """

    def __init__(self, *, max_watches: int) -> None:
        self._watches = SharedWatches(self._new_watch, limit=max_watches)
        self._catalog_watch: Watch[Catalog] | None = None

    @abc.abstractmethod
    def _new_watch(self, service: str) -> Watch[Snapshot]:
        """A watch of the service, not yet started."""

    @abc.abstractmethod
    def _new_catalog_watch(self) -> Watch[Catalog]:
        """A watch of the service names, not yet started."""

    def watch(self, service: str) -> Watch[Snapshot]:
        """A started watch, shared by all callers. See `Registry.watch`.

        Raises:
            RegistryError: too many services are being watched already.
        """
        return self._watches.watch(check_service(service))

    async def release(self, service: str) -> None:
        """End one use of a watch. See `Registry.release`."""
        await self._watches.release(service)

    def watch_catalog(self) -> Watch[Catalog]:
        """A started watch of the service names, shared. See `Registry.watch_catalog`."""
        if self._catalog_watch is None:
            self._catalog_watch = self._new_catalog_watch()
        return self._catalog_watch.start()

    async def _close_watches(self) -> None:
        await self._watches.aclose()
        if self._catalog_watch is not None:
            await self._catalog_watch.aclose()
