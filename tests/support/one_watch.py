"""A registry of one service, for clients that ask no proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from fingerpost.registry import Catalog, Snapshot, Watch
from fingerpost.registry.address_policy import RejectedEntries

__all__ = ["OneWatch"]


class OneWatch:
    """A registry that knows `digits` and notes whether it was closed; it registers nothing."""

    def __init__(self, poll: Callable[[int, float], Awaitable[tuple[Snapshot, int]]]) -> None:
        self._poll = poll
        self.closed = False
        self.watches: dict[str, Watch[Snapshot]] = {}
        self.rejected_entries = RejectedEntries()

    async def register(self, instance: object, *, healthy: object = None) -> NoReturn:
        raise NotImplementedError

    async def set_draining(self, instance_id: str, reason: str | None) -> None:
        raise NotImplementedError

    async def remove_stale(self, instance: object) -> NoReturn:
        raise NotImplementedError

    async def list(self, service: str) -> Snapshot:
        raise NotImplementedError

    async def document(self, name: str) -> bytes | None:
        raise NotImplementedError

    async def publish(self, name: str, content: bytes) -> None:
        raise NotImplementedError

    def watch(self, service: str) -> Watch[Snapshot]:
        if service not in self.watches:
            self.watches[service] = Watch(self._poll, name=service).start()
        return self.watches[service]

    def watch_catalog(self) -> Watch[Catalog]:
        raise NotImplementedError

    async def release(self, service: str) -> None:
        """Leave the watch to `aclose`."""

    async def catalog(self) -> Catalog:
        return Catalog(services=("digits",), index=1, taken_at=0.0)

    async def aclose(self) -> None:
        self.closed = True
        for each in self.watches.values():
            await each.aclose()
