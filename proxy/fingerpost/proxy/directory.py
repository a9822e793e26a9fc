"""The proxy's snapshot of every service, kept current by watching the registry."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Self

from fingerpost.errors import (
    FingerpostError,
    InvalidRequest,
    RegistryError,
    RegistryUnreachable,
    UnknownService,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.registry import Catalog, Registry, Snapshot, Watch
    from fingerpost.registry.address_policy import RejectedEntries

__all__ = ["Directory"]

logger = logging.getLogger(__name__)


class Directory:
    """Watches the catalog and each service in it, and answers lookups from memory.

    A service that leaves the catalog stays watched, so that its clients get "no worker, try again"
    rather than "no such service" while its last worker restarts.

    If the registry is unreachable at the start, and keeps snapshots on disk, the services are those
    of the snapshots. A service that is only on disk is forgotten once the registry answers, if it
    does not list the service and has no instance of it. Otherwise a service that was removed long
    ago would make `GET /` ambiguous.

    Args:
        registry: the registry to watch; the caller closes it.
        default: a service that is watched even if the catalog does not list it, and that answers
            lookups without a service; None for the only service there is.
        first_snapshot_timeout_s: how long a lookup waits for a first snapshot, in seconds.
    """

    def __init__(
        self, registry: Registry, *, default: str | None, first_snapshot_timeout_s: float
    ) -> None:
        self._registry = registry
        self._default = default
        self._first_snapshot_timeout_s = first_snapshot_timeout_s
        self._watches: dict[str, Watch[Snapshot]] = {}
        self._catalog: Watch[Catalog] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()
        self._holds: set[asyncio.Timeout] = set()

    async def __aenter__(self) -> Self:
        """Start the watches; returns at once."""
        self._catalog = self._registry.watch_catalog()
        if self._default is not None:
            self._watches[self._default] = self._registry.watch(self._default)
        self._follower = asyncio.create_task(self._follow(self._catalog), name="catalog")
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [*self._checks, *([self._follower] if self._follower is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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

        None where there is no service yet, or more than one.
        """
        if self._default is not None:
            return self._default
        return next(iter(self._watches)) if len(self._watches) == 1 else None

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
        if (service := self.default_service) is not None:
            return service
        if names := sorted(self._watches):
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
            if catalog is not None and catalog.view and service in catalog.view.services:
                self._watch(service, catalog)
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
                async with self._hold(wait_s):
                    return await watch.changed(index)
            return watch.view or snapshot
        return snapshot

    def end_holds(self) -> None:
        """Answer all held lookups now, with the present snapshots."""
        now = asyncio.get_running_loop().time()
        for hold in self._holds:
            hold.reschedule(now)

    async def catalog_changed(self, wait_s: float) -> None:
        """Return when the list of services has changed, or `wait_s` seconds have passed."""
        if self._catalog is not None:
            with contextlib.suppress(TimeoutError):
                async with self._hold(wait_s):
                    await self._catalog.changed(self.catalog_index)

    @contextlib.asynccontextmanager
    async def _hold(self, wait_s: float) -> AsyncIterator[None]:
        """Like `asyncio.timeout`, but over at once when `end_holds` is called."""
        async with asyncio.timeout(wait_s) as hold:
            self._holds.add(hold)
            try:
                yield
            finally:
                self._holds.discard(hold)

    async def _first_catalog(self) -> None:
        """Return once the list of services has been read. Raises `RegistryUnreachable`."""
        if self._catalog is None:
            return
        try:
            async with asyncio.timeout(self._first_snapshot_timeout_s):
                await self._catalog.changed(0)
        except TimeoutError:
            raise self._no_snapshot("the services") from None
        self._watch_all(self._catalog)

    async def _follow(self, catalog: Watch[Catalog]) -> None:
        async for _ in catalog:
            if (error := self._watch_all(catalog)) is not None:
                logger.warning("not all services are watched: %s", error)

    def _watch_all(self, catalog: Watch[Catalog]) -> RegistryError | None:
        """Watch all listed services; returns the error where that is not possible for all."""
        for service in catalog.view.services if catalog.view else ():
            try:
                self._watch(service, catalog)
            except RegistryError as error:
                return error
        return None

    def _watch(self, service: str, catalog: Watch[Catalog]) -> None:
        """Watch a listed service. Raises `RegistryError` where too many are watched already."""
        if service in self._watches:
            return
        watch = self._watches[service] = self._registry.watch(service)
        if catalog.view is not None and catalog.view.from_disk:
            check = asyncio.create_task(
                self._forget_if_gone(service, watch, catalog), name=f"check {service}"
            )
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _forget_if_gone(
        self, service: str, watch: Watch[Snapshot], catalog: Watch[Catalog]
    ) -> None:
        """Forget a service from disk if the registry, once it answers, does not have it."""
        listed = await catalog.changed(0)
        while listed.from_disk:
            listed = await catalog.changed(listed.index)
        snapshot = await watch.changed(0)
        while snapshot.from_disk or snapshot.retained:
            snapshot = await watch.changed(snapshot.index)
        # The service may be listed again by now; then this watch belongs to the list.
        now = catalog.view or listed
        if not snapshot.known and service not in now.services:
            logger.warning(
                "service %s is only on disk and is forgotten: the registry does not have it",
                service,
            )
            del self._watches[service]
            await self._registry.release(service)

    def _no_snapshot(self, what: str) -> RegistryError:
        cause = f": {self.error}" if self.error else ""
        return RegistryUnreachable(
            f"the registry has not answered about {what} yet{cause}", retry_after_s=1.0
        )
