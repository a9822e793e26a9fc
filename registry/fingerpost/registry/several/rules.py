"""How the views of several registries become one. Pure: no clock, no I/O.

With `merged`, an instance is in the view if one of them lists it; the first that lists an id gives
the entry. With `failover`, the view is that of the first registry that has a healthy instance.

A registry that does not answer keeps its last good view, so that its outage hides nothing; the age
of the view is that of the oldest part. One that has never answered is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from fingerpost.registry.snapshot import Catalog, Snapshot

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["Mode", "merge_catalogs", "merge_snapshots"]

Mode = Literal["merged", "failover"]


def merge_snapshots(service: str, views: Sequence[Snapshot], mode: Mode) -> Snapshot:
    """One view of a service out of those of its registries, in their order; at least one."""
    index = max(1, sum(each.index for each in views))
    if mode == "failover":
        views = next(([each] for each in views if each.instances), views)
    instances: dict[str, Instance] = {}
    for view in views:
        for each in view.instances:
            instances.setdefault(each.id, each)
    return Snapshot(
        service=service,
        instances=tuple(instances[each] for each in sorted(instances)),
        known=any(each.known for each in views),
        index=index,
        taken_at=min(each.taken_at for each in views),
        retained=_ids((each.retained for each in views), instances, listed=True),
        withdrawn=_ids((each.withdrawn for each in views), instances, listed=False),
        failing=tuple(each for view in views for each in view.failing if each[0] not in instances),
        rejected=tuple(each for view in views for each in view.rejected),
        from_disk=any(each.from_disk for each in views),
    )


def merge_catalogs(views: Sequence[Catalog]) -> Catalog:
    """One list of services out of those of several registries; at least one."""
    return Catalog(
        services=tuple(sorted({name for each in views for name in each.services})),
        index=max(1, sum(each.index for each in views)),
        taken_at=min(each.taken_at for each in views),
        from_disk=any(each.from_disk for each in views),
        unlisted=tuple(sorted({name for each in views for name in each.unlisted})),
    )


def _ids(
    lists: Iterable[tuple[str, ...]], instances: dict[str, Instance], *, listed: bool
) -> tuple[str, ...]:
    return tuple(sorted({each for ids in lists for each in ids if (each in instances) is listed}))
