"""One watch for each service, shared by all that ask for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fingerpost.errors import RegistryError

if TYPE_CHECKING:
    from fingerpost.registry.snapshot import Snapshot
    from fingerpost.registry.watching.watch import Watch

__all__ = ["SharedWatches"]


class SharedWatches:
    """One watch for each service, however many callers: what a registry's `watch` is made of.

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
            # One that somebody closed holds no connection any more.
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
        """End all of them."""
        for watch in self._watches.values():
            await watch.aclose()
