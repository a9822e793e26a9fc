"""The workers as scrape targets, in the format of Prometheus' `http_sd_configs`.

A worker process is one target however many models it serves, because Prometheus scrapes a target
once for each set of labels. The format: prometheus.io/docs/prometheus/latest/http_sd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fingerpost.registry import Instance, Snapshot

__all__ = ["TargetGroup", "target_groups"]


class TargetGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One worker.

    Attributes:
        targets: its `host:port`.
        labels: `__meta_fingerpost_services` (`,digits,flowers,`, so that a pattern can match a
            whole name), `_zone` and `_device`; a scrape config makes labels of them. `__scheme__`
            is `https` of a worker that speaks TLS: Prometheus then scrapes it so.
    """

    targets: tuple[str, ...]
    labels: dict[str, str]


def target_groups(snapshots: Iterable[Snapshot]) -> list[TargetGroup]:
    """The healthy workers of all services, sorted by address."""
    workers: dict[str, list[Instance]] = {}
    for snapshot in snapshots:
        for instance in snapshot.instances:
            workers.setdefault(instance.address, []).append(instance)
    return [
        TargetGroup(targets=(address,), labels=_labels(workers[address]))
        for address in sorted(workers)
    ]


def _labels(instances: list[Instance]) -> dict[str, str]:
    first = instances[0]
    services = sorted({each.service for each in instances})
    scheme = {"__scheme__": "https"} if first.speaks_tls else {}
    return scheme | {
        "__meta_fingerpost_services": f",{','.join(services)},",
        "__meta_fingerpost_zone": first.zone,
        "__meta_fingerpost_device": first.meta.get("device", ""),
    }
