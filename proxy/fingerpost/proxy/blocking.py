"""Lookups that are held until something changes, as Consul's blocking queries are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import Overloaded, UnknownService
from fingerpost.proxy.answers import RETRY_AFTER_S

if TYPE_CHECKING:
    from fingerpost.proxy.directory import Directory
    from fingerpost.registry import Snapshot

__all__ = ["BlockingQueries"]


class BlockingQueries:
    """Holds a limited number of lookups at once; the next one is refused at once.

    Args:
        directory: the snapshots that lookups wait for.
        most: most lookups held at once.
        max_wait_s: longest time that a lookup is held, in seconds.

    Attributes:
        waiting: lookups that are held now.
    """

    def __init__(self, directory: Directory, *, most: int, max_wait_s: float) -> None:
        self._directory = directory
        self._most = most
        self._max_wait_s = max_wait_s
        self.waiting = 0

    async def resolve(self, service: str, *, index: int, wait_s: float) -> Snapshot:
        """The snapshot of a service, once its index is not `index` or `wait_s` have passed.

        A service that is not known yet is waited for too.

        Raises:
            Overloaded: too many lookups are held.
            UnknownService, RegistryError: see `Directory.resolve`.
        """
        if self.waiting >= self._most:
            raise Overloaded(
                f"{self.waiting} lookups wait here already: ask another proxy, or without index=",
                retry_after_s=RETRY_AFTER_S,
            )
        wait_s = min(wait_s, self._max_wait_s)
        self.waiting += 1
        try:
            return await self._directory.resolve(service, index=index, wait_s=wait_s)
        except UnknownService:
            await self._directory.catalog_changed(wait_s)
            return await self._directory.resolve(service)
        finally:
            self.waiting -= 1
