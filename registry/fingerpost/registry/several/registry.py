"""Several registries as one: a worker counts wherever it is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fingerpost.errors import ConfigurationError, FingerpostError, InvalidRequest
from fingerpost.registry.address_policy import RejectedEntries
from fingerpost.registry.documents import check_document
from fingerpost.registry.names import check_id_or_address, check_service
from fingerpost.registry.several.rules import Mode, merge_catalogs, merge_snapshots
from fingerpost.registry.several.watch import SeveralWatch
from fingerpost.registry.watching.shared import WatchingRegistry

if TYPE_CHECKING:
    import builtins

    from fingerpost.registry.base import Registration, Registry
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.snapshot import Catalog, Snapshot
    from fingerpost.registry.watching.service_watch import Store
    from fingerpost.registry.watching.watch import Watch

__all__ = ["SeveralRegistries"]

logger = logging.getLogger(__name__)

# Each part has a limit of its own too.
MAX_WATCHES: Final = 1000

T = TypeVar("T")


class SeveralRegistries(WatchingRegistry):
    """`Registry` over several others, in their order.

    Readers see the instances of all of them, or of the first that has one (`mode`). The first is a
    worker's own: registering, removing what is stale and publishing documents are there alone. An
    instance is drained wherever it is recorded, and a document is read from the first that has it.

    A resolve needs an answer of each registry, unless those that answered have healthy instances:
    an error is not an empty list. A watch keeps the last good view of each.

    Args:
        registries: the registries; `aclose` closes them.
        mode: `merged` or `failover`; see `rules`.
        store: where snapshots are kept across restarts; None keeps none. `aclose` closes it.
    """

    def __init__(
        self, registries: Sequence[Registry], *, mode: Mode = "merged", store: Store | None = None
    ) -> None:
        if len(registries) < 2:
            raise ConfigurationError("give two registries or more, or use the one directly")
        super().__init__(max_watches=MAX_WATCHES)
        self._registries = tuple(registries)
        self._mode: Mode = mode
        self._store = store

    @property
    def rejected_entries(self) -> RejectedEntries:
        """The rejected entries of all registries together."""
        total = RejectedEntries()
        for each in self._registries:
            for reason, count in each.rejected_entries.by_reason.items():
                total.by_reason[reason] = total.by_reason.get(reason, 0) + count
        return total

    async def register(
        self, instance: Instance, *, healthy: Callable[[], bool] | None = None
    ) -> Registration:
        """Record the instance in the first registry. See `Registry.register`."""
        return await self._registries[0].register(instance, healthy=healthy)

    async def remove_stale(self, instance: Instance) -> tuple[str, ...]:
        """Remove entries of the first registry. See `Registry.remove_stale`."""
        return await self._registries[0].remove_stale(instance)

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        """Drain an instance wherever it is. See `Registry.set_draining`.

        Raises:
            InvalidRequest: no registry has such an instance.
            RegistryError: it was not drained, and a call failed.
        """
        check_id_or_address(instance_id)
        results = await self._all(lambda each: each.set_draining(instance_id, reason))
        if any(not isinstance(each, BaseException) for each in results):
            return
        others = [each for each in results if not isinstance(each, InvalidRequest)]
        failures = [each for each in others if not isinstance(each, ConfigurationError)]
        raise [*failures, *results][0]  # type: ignore[misc]

    async def list(self, service: str) -> Snapshot:
        """Resolve once. See `Registry.list`."""
        check_service(service)
        views, failure = await self._answers(lambda each: each.list(service))
        merged = merge_snapshots(service, views, self._mode) if views else None
        if merged is None or (failure is not None and not merged.instances):
            raise failure or InvalidRequest(f"no registry answers about {service!r}")
        return merged

    async def catalog(self) -> Catalog:
        """The names of the services of all registries. See `Registry.catalog`."""
        views, failure = await self._answers(lambda each: each.catalog())
        if failure is not None and not any(each.services for each in views):
            raise failure
        return merge_catalogs(views)

    async def document(self, name: str) -> bytes | None:
        """The document of the first registry that has it. See `Registry.document`."""
        check_document(name)
        failure: FingerpostError | None = None
        for each in self._registries:
            try:
                if (content := await each.document(name)) is not None:
                    return content
            except FingerpostError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return None

    async def publish(self, name: str, content: bytes) -> None:
        """Write a document to the first registry. See `Registry.publish`."""
        await self._registries[0].publish(name, content)

    async def aclose(self) -> None:
        """End all watches, and close all registries."""
        await self._close_watches()
        for each in self._registries:
            await each.aclose()
        if self._store is not None:
            await self._store.aclose()

    def _new_watch(self, service: str) -> Watch[Snapshot]:
        async def release() -> None:
            for each in self._registries:
                await each.release(service)

        store = self._store
        return SeveralWatch(
            lambda: [each.watch(service) for each in self._registries],
            release,
            lambda views: self._stored(merge_snapshots(service, views, self._mode)),
            name=f"service {service} in {len(self._registries)} registries",
            load=None if store is None else lambda: store.load(service),
        )

    def _stored(self, view: Snapshot) -> Snapshot:
        if self._store is not None:
            self._store.put(view)
        return view

    def _new_catalog_watch(self) -> Watch[Catalog]:
        async def release() -> None:
            """The registries' own watches of the catalog end with them."""

        return SeveralWatch(
            lambda: [each.watch_catalog() for each in self._registries],
            release,
            merge_catalogs,
            name=f"the catalog of {len(self._registries)} registries",
            load=self._store.catalog if self._store is not None else None,
        )

    async def _all(
        self, call: Callable[[Registry], Awaitable[T]]
    ) -> builtins.list[T | BaseException]:
        return await asyncio.gather(*map(call, self._registries), return_exceptions=True)

    async def _answers(
        self, call: Callable[[Registry], Awaitable[Any]]
    ) -> tuple[builtins.list[Any], FingerpostError | None]:
        """The results of those that answered, and the first failure of the others."""
        results, failure = [], None
        for each in await self._all(call):
            if isinstance(each, FingerpostError):
                logger.warning("one of several registries does not answer: %s", each)
                failure = failure or each
            elif isinstance(each, BaseException):
                raise each
            else:
                results.append(each)
        return results, failure
