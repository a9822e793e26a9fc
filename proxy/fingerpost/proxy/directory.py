"""The proxy's snapshot of every service, kept current by watching the registry."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.supervision import supervise
from fingerpost.errors import (
    FingerpostError,
    InvalidRequest,
    RegistryError,
    RegistryUnreachable,
    UnknownService,
)
from fingerpost.proxy.vanished import VanishedServices

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from fingerpost.registry import Catalog, Registry, Snapshot, Watch
    from fingerpost.registry.address_policy import RejectedEntries

__all__ = ["Directory"]

logger = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 0.5


class Directory:
    """Watches the catalog and each service in it, and answers lookups from memory.

    A service of foreign workers that the catalog does not list (`Catalog.unlisted`) is watched from
    its first lookup on. Without any other service, the only one of these is the default.

    A service that leaves the catalog stays watched for a while, so that its clients get "no worker,
    try again" rather than "no such service" while its last worker restarts. It is *vanished* once
    the registry neither lists it nor has an instance of it, and none of its workers is retained.
    It is forgotten after `forget_after_s`, or sooner where a new service needs its watch. An outage
    makes no service vanish.

    If the registry is unreachable at the start, and keeps snapshots on disk, the services are those
    of the snapshots. A service that is only on disk is forgotten as soon as it has vanished.

    Args:
        registry: the registry to watch; the caller closes it.
        default: a service that is watched even if the catalog does not list it, and that answers
            lookups without a service; None for the only service there is.
        expected: services that are watched likewise, and never forgotten: they may have no worker.
        first_snapshot_timeout_s: how long a lookup waits for a first snapshot, in seconds.
        forget_after_s: how long a vanished service stays watched, in seconds.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        default: str | None,
        expected: tuple[str, ...] = (),
        first_snapshot_timeout_s: float,
        forget_after_s: float,
    ) -> None:
        self._registry = registry
        self._default = default
        self._kept = dict.fromkeys((*(() if default is None else (default,)), *expected))
        self._first_snapshot_timeout_s = first_snapshot_timeout_s
        self._watches: dict[str, Watch[Snapshot]] = {}
        self._catalog: Watch[Catalog] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._vanished = VanishedServices(forget_after_s)
        self._only_on_disk: set[str] = set()
        self._holds: dict[asyncio.Timeout, str | None] = {}

    async def __aenter__(self) -> Self:
        """Start the watches; returns at once."""
        self._catalog = self._registry.watch_catalog()
        for service in self._kept:
            self._watches[service] = self._registry.watch(service)
        self._follower = asyncio.create_task(
            supervise(functools.partial(self._follow, self._catalog), "catalog"), name="catalog"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Whether the catalog and every service in it have a snapshot."""
        return (
            self._catalog is not None
            and self._catalog.view is not None
            and all(watch.view is not None for watch in self._watches.values())
        )

    @property
    def error(self) -> FingerpostError | None:
        """Why the catalog cannot be refreshed now, or None."""
        return self._catalog.error if self._catalog is not None else None

    @property
    def catalog_index(self) -> int:
        """The index of the list of services; 0 before it is known."""
        return self._catalog.view.index if self._catalog and self._catalog.view else 0

    @property
    def rejected_entries(self) -> RejectedEntries:
        """Entries of the registry that are not used, and why."""
        return self._registry.rejected_entries

    def watches(self) -> dict[str, Watch[Snapshot]]:
        """The watch of each service, by its name."""
        return self._watches

    def snapshots(self) -> list[Snapshot]:
        """The last good snapshot of every service, sorted by name."""
        views = (watch.view for _, watch in sorted(self._watches.items()))
        return [view for view in views if view is not None]

    @property
    def default_service(self) -> str | None:
        """The service for lookups that name none: the configured one, else the only one.

        One that has vanished does not count beside others. None where there is no service yet, or
        more than one.
        """
        if self._default is not None:
            return self._default
        names = self._watches if len(self._watches) == 1 else self._present()
        if len(names) > 1:  # one that was only asked for by its name does not count beside others
            names = [each for each in names if each not in self._unlisted()]
        return next(iter(names)) if len(names) == 1 else None

    def _unlisted(self) -> tuple[str, ...]:
        """The services that are found by their name only: `Catalog.unlisted`."""
        return self._catalog.view.unlisted if self._catalog and self._catalog.view else ()

    def _present(self) -> list[str]:
        """The services that the registry lists, or that have a worker; the others vanished."""
        view = self._catalog.view if self._catalog else None
        listed = {*view.services, *view.unlisted} if view else set()
        return [
            name
            for name, watch in self._watches.items()
            if name in listed or (watch.view is not None and watch.view.instances)
        ]

    async def services(self) -> list[Snapshot]:
        """`snapshots`, once the list of services is known from the registry or from disk.

        Raises:
            RegistryUnreachable: no list of services came since the start.
        """
        if self._catalog is not None and self._catalog.view is None:
            await self._first_catalog()
        return self.snapshots()

    async def wait_default_service(self) -> str:
        """`default_service`, once the list of services is known.

        Raises:
            InvalidRequest: there are several services, and none was configured.
            UnknownService: there is no service.
            RegistryUnreachable: no list of services came since the start.
        """
        if not self._watches:
            await self._first_catalog()
            if not self._watches and len(self._unlisted()) == 1:
                return self._unlisted()[0]
        if (service := self.default_service) is not None:
            return service
        if names := sorted(self._present()) or self._unlisted():
            raise InvalidRequest(
                f"there are {len(names)} services ({', '.join(names[:5])}): name one, as in "
                f"/v1/resolve/{names[0]}, or start the proxy with --service"
            )
        raise UnknownService("no service is registered yet: start a worker")

    def snapshot(self, service: str) -> Snapshot | None:
        """The last good snapshot of a service, or None where none is in memory."""
        watch = self._watches.get(service)
        return watch.view if watch is not None else None

    async def resolve(self, service: str, *, index: int = 0, wait_s: float = 0.0) -> Snapshot:
        """The last good snapshot, once its index is not `index` or `wait_s` seconds have passed.

        Raises:
            UnknownService: the catalog does not list the service.
            RegistryUnreachable: no snapshot came since the start.
            RegistryError: more services are listed than can be watched.
        """
        if service not in self._watches:
            await self._first_catalog()
            catalog = self._catalog
            view = None if catalog is None else catalog.view
            if catalog is not None and view and service in (*view.services, *view.unlisted):
                await self._watch(service, catalog)
        if service not in self._watches:
            raise UnknownService(f"no service is called {service!r}; GET /v1/services lists them")
        watch = self._watches[service]
        try:
            async with asyncio.timeout(self._first_snapshot_timeout_s):
                snapshot = await watch.changed(0)
        except TimeoutError:
            raise self._no_snapshot(f"service {service!r}") from None
        if snapshot.index == index:
            with contextlib.suppress(TimeoutError):
                async with self._hold(wait_s, service):
                    return await watch.changed(index)
            return watch.view or snapshot
        return snapshot

    def end_holds(self) -> None:
        """Answer all held lookups now, with the present snapshots."""
        self._end(self._holds)

    def _end(self, holds: Iterable[asyncio.Timeout]) -> None:
        now = asyncio.get_running_loop().time()
        for hold in holds:
            if not hold.expired():
                hold.reschedule(now)

    async def catalog_changed(self, wait_s: float) -> None:
        """Return when the list of services has changed, or `wait_s` seconds have passed."""
        if self._catalog is not None:
            with contextlib.suppress(TimeoutError):
                async with self._hold(wait_s):
                    await self._catalog.changed(self.catalog_index)

    @contextlib.asynccontextmanager
    async def _hold(self, wait_s: float, service: str | None = None) -> AsyncIterator[None]:
        """Like `asyncio.timeout`, but over at once when `end_holds` is called.

        It is also over when `service` is forgotten, which would be waited for in vain.
        """
        async with asyncio.timeout(wait_s) as hold:
            self._holds[hold] = service
            try:
                yield
            finally:
                del self._holds[hold]

    async def _first_catalog(self) -> None:
        """Return once the list of services has been read. Raises `RegistryUnreachable`."""
        if self._catalog is None:
            return
        try:
            async with asyncio.timeout(self._first_snapshot_timeout_s):
                await self._catalog.changed(0)
        except TimeoutError:
            raise self._no_snapshot("the services") from None
        await self._watch_all(self._catalog)

    async def _follow(self, catalog: Watch[Catalog]) -> None:
        logged = ""
        while True:
            error = await self._watch_all(catalog)
            if error is not None and error.message != logged:
                logger.warning("not all services are watched: %s", error)
            logged = "" if error is None else error.message
            await self._forget_vanished(catalog)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await catalog.changed(self.catalog_index)

    async def _watch_all(self, catalog: Watch[Catalog]) -> RegistryError | None:
        """Watch all listed services; returns the error where that is not possible for all."""
        for service in catalog.view.services if catalog.view else ():
            try:
                await self._watch(service, catalog)
            except RegistryError as error:
                return error
        return None

    async def _watch(self, service: str, catalog: Watch[Catalog]) -> None:
        """Watch a listed service. Raises `RegistryError` where too many are watched already."""
        while service not in self._watches:
            try:
                self._watches[service] = self._registry.watch(service)
            except RegistryError:
                # A service that came and went must not keep a new one out.
                if (vanished := self._vanished.oldest()) is None:
                    raise
                await self._forget(vanished)
            else:
                if catalog.view is not None and catalog.view.from_disk:
                    self._only_on_disk.add(service)

    async def _forget_vanished(self, catalog: Watch[Catalog]) -> None:
        """Forget the services that vanished long ago, or that were only on disk."""
        listed = catalog.view
        if listed is None or listed.from_disk or catalog.error is not None:
            return  # an outage says nothing about any service
        present = {*self._present(), *self._kept}
        self._only_on_disk -= set(listed.services)
        vanished = [
            name
            for name, watch in self._watches.items()
            if name not in present
            and watch.error is None
            and watch.view is not None
            and not watch.view.from_disk
        ]
        now = asyncio.get_running_loop().time()
        for service in self._vanished.update(vanished, at_once=self._only_on_disk, now=now):
            await self._forget(service)

    async def _forget(self, service: str) -> None:
        """End the watch of a vanished service, and the lookups that wait for it."""
        if self._watches.pop(service, None) is None:
            return  # done meanwhile
        if service in self._only_on_disk:
            logger.warning(
                "service %s is only on disk and is forgotten: the registry does not have it",
                service,
            )
        else:
            logger.info("service %s is forgotten: the registry does not have it any more", service)
        self._vanished.discard(service)
        self._only_on_disk.discard(service)
        self._end(hold for hold, waiting_for in self._holds.items() if waiting_for == service)
        await self._registry.release(service)

    def _no_snapshot(self, what: str) -> RegistryError:
        cause = f": {self.error}" if self.error else ""
        return RegistryUnreachable(
            f"the registry has not answered about {what} yet{cause}", retry_after_s=1.0
        )
