"""Immutable views of a registry: one service, and the list of services."""

from __future__ import annotations

from typing import Self

import msgspec

from fingerpost.basics.renames import renamed_attributes
from fingerpost.registry.instance import Instance, ModelReference

__all__ = ["Catalog", "Snapshot"]


@renamed_attributes(kept="retained")
class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One service as the registry had it at one moment.

    Attributes:
        service: the service's name.
        instances: its healthy instances, sorted by id; empty only when the registry has none.
        known: whether the registry lists the service at all, healthy instances or not.
        index: the registry's index when this content was first seen; 1 or more.
        taken_at: when the registry last confirmed it, in seconds of a monotonic clock.
        retained: ids of those instances that the registry no longer lists and gave no reason for,
            but that answer themselves that they are ready (see `watching.self_preservation`);
            sorted. `instances` includes them; `taken_at` is the registry's last answer all the
            same.
        withdrawn: ids of entries that are off the list for a reason that concerns them
            (maintenance, the worker's own report that it is not well, a rejected entry); sorted.
            An entry of which only a check got no answer is not among them.
        failing: id and reason of each entry that is off the list because of its check, and not
            drained: the check's output, with the address. For people; it may be some seconds old.
        rejected: id and reason of each entry left out as malformed or not allowed. For people.
        from_disk: whether it was read from a `SnapshotStore`, because the registry has not
            answered since this process started. Its age counts from when the registry confirmed
            it, whichever process took it.
    """

    service: str
    instances: tuple[Instance, ...]
    known: bool
    index: int
    taken_at: float
    retained: tuple[str, ...] = ()
    withdrawn: tuple[str, ...] = ()
    failing: tuple[tuple[str, str], ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()
    from_disk: bool = False

    def age_s(self, now: float) -> float:
        """Seconds since the registry last confirmed this view."""
        return max(0.0, now - self.taken_at)

    def same_content(self, other: Self) -> bool:
        """Whether both have the same instances, whenever taken and whether retained or listed."""
        return (self.known, self.instances) == (other.known, other.instances)

    def matching(self, reference: ModelReference) -> tuple[Instance, ...]:
        """The instances that serve the version or alias asked for."""
        if reference.version is None and reference.alias is None:
            return self.instances
        return tuple(each for each in self.instances if each.serves(reference))


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """The names of all Fingerpost services, sorted; `index` and `taken_at` as in `Snapshot`.

    `unlisted` are the names of other services that may have foreign workers, sorted: a registry
    such as Consul has all services of a company. They are found by their name only.

    With `from_disk`, they are those of which a `SnapshotStore` has a snapshot, because the registry
    has not answered since this process started; there may be others.
    """

    services: tuple[str, ...]
    index: int
    taken_at: float
    from_disk: bool = False
    unlisted: tuple[str, ...] = ()

    def same_content(self, other: Self) -> bool:
        """Whether both list the same services from the same source, whenever they were taken.

        The registry's first list counts as a change even if it equals the one on disk: see
        `Directory` in the proxy.
        """
        mine = self.services, self.from_disk, self.unlisted
        return mine == (other.services, other.from_disk, other.unlisted)
