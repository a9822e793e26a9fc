"""What one process knows of a namespace: Leases and pods, by service. No I/O."""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING

from fingerpost.registry.kubernetes.rules import (
    Entry,
    PodState,
    merge_endpoints,
    pods_of,
    read_entry,
)
from fingerpost.registry.names import is_service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry.kubernetes.codec import Endpoint, LeaseEntry, Slice

__all__ = ["NamespaceState", "entries_of"]


def entries_of(leases: Iterable[LeaseEntry], slices: Iterable[Slice]) -> list[Entry]:
    """The entries of Leases, with all slices of their namespace."""
    pods = pods_of(slices)
    return [read_entry(each, pods) for each in leases]


class NamespaceState:
    """Leases and pods, changed one by one; and the entries that follow, by service.

    An entry is made anew only when its Lease or its pod changes. So the change of a slice with 100
    endpoints costs the entries of those that differ, and wakes the watches of their services alone.
    """

    def __init__(self) -> None:
        self._leases: dict[tuple[str, str], LeaseEntry] = {}
        self._by_pod: dict[str, set[tuple[str, str]]] = {}
        self._entries: dict[str, dict[str, Entry]] = {}
        self._endpoints: dict[str, dict[str, Endpoint]] = {}
        self._pods: dict[str, PodState] = {}
        self._signals: dict[str, weakref.WeakSet[asyncio.Event]] = {}

    def signal(self, service: str = "") -> asyncio.Event:
        """An event that is set by each change of a service; of the list of services for no name.

        It is forgotten with its last user.
        """
        event = asyncio.Event()
        self._signals.setdefault(service, weakref.WeakSet()).add(event)
        return event

    def wake_all(self) -> None:
        """Set every signal: a list was read, or reading failed."""
        for signals in self._signals.values():
            for each in signals:
                each.set()

    @property
    def services(self) -> tuple[str, ...]:
        """The services that have a Lease, sorted."""
        return tuple(sorted(filter(is_service, self._entries)))

    def entries(self, service: str) -> list[Entry]:
        """The entries of a service."""
        return [*self._entries.get(service, {}).values()]

    def lease_changed(self, old: LeaseEntry | None, new: LeaseEntry | None) -> None:
        """A Lease appeared, changed, or vanished; with None and None all signals are set."""
        if old is None and new is None:
            self.wake_all()
        if old is not None:
            key = old.service, old.name
            del self._leases[key]
            if old.pod is not None and (keys := self._by_pod.get(old.pod.uid)) is not None:
                keys.discard(key)
                if not keys:
                    del self._by_pod[old.pod.uid]
            if new is None or new.service != old.service:
                self._drop(key)
        if new is not None:
            key = new.service, new.name
            self._leases[key] = new
            if new.pod is not None:
                self._by_pod.setdefault(new.pod.uid, set()).add(key)
            self._refresh(key)

    def slice_changed(self, old: Slice | None, new: Slice | None) -> None:
        """An EndpointSlice appeared, changed, or vanished; with None and None as above."""
        if old is None and new is None:
            self.wake_all()
        before = {} if old is None else {each.pod.uid: each for each in old.endpoints}
        after = {} if new is None else {each.pod.uid: each for each in new.endpoints}
        for uid in before.keys() | after.keys():
            if before.get(uid) == after.get(uid):
                continue
            slices = self._endpoints.setdefault(uid, {})
            if old is not None:
                slices.pop(old.name, None)
            if new is not None and uid in after:
                slices[new.name] = after[uid]
            state = merge_endpoints(slices.values())
            if not slices:
                del self._endpoints[uid]
            if state is None:
                self._pods.pop(uid, None)
            else:
                self._pods[uid] = state
            for key in self._by_pod.get(uid, ()):
                self._refresh(key)

    def _refresh(self, key: tuple[str, str]) -> None:
        service, name = key
        entries = self._entries.get(service)
        if entries is None:
            entries = self._entries[service] = {}
            self._wake("")
        entry = read_entry(self._leases[key], self._pods)
        if entries.get(name) != entry:
            entries[name] = entry
            self._wake(service)

    def _drop(self, key: tuple[str, str]) -> None:
        service, name = key
        entries = self._entries[service]
        del entries[name]
        self._wake(service)
        if not entries:
            del self._entries[service]
            self._wake("")

    def _wake(self, service: str) -> None:
        signals = self._signals.get(service)
        if signals is None:
            return
        if not signals:
            del self._signals[service]
        for each in signals:
            each.set()
