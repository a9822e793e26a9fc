"""How many requests a service has now: what an autoscaler follows. Pure."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fingerpost.registry import Instance, LoadReport, Snapshot

__all__ = ["Demand", "LoadAnswer"]

# Probes are a second apart, and requests may take milliseconds: one probe alone sees few of them.
_OVER_S: Final = 15.0


class LoadAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `GET /v1/load/{service}`.

    Attributes:
        service: the model.
        workers: how many healthy workers it has.
        rif: requests in flight and waiting at these workers now, by their last load reports. A
            worker that serves several models counts in each of them.
        held: lookups that this proxy holds until there is a worker.
        demand: what to scale on: `rif` on average over 15 s, rounded up, and `held`. At least 1
            while the workers have answered an image or a lookup was held in these 15 s; 0 means
            that nobody uses it.
    """

    service: str
    workers: int
    rif: int
    held: int
    demand: int


class Demand:
    """Remembers the load of each service for 15 seconds."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[float, int]]] = {}
        self._images: dict[str, tuple[int, int]] = {}
        self._used_at: dict[str, float] = {}

    def probed(
        self, snapshots: Iterable[Snapshot], reports: Mapping[str, LoadReport], now: float
    ) -> None:
        """Add what the probes of all workers brought; `now` in seconds of a monotonic clock."""
        samples: dict[str, deque[tuple[float, int]]] = {}
        images: dict[str, tuple[int, int]] = {}
        used_at: dict[str, float] = {}
        for snapshot in snapshots:
            name = snapshot.service
            found = samples[name] = self._samples.get(name, deque())
            found.append((now, _rif(snapshot.instances, reports)))
            while found[0][0] < now - _OVER_S:
                found.popleft()
            used_at[name] = self._used_at.get(name, -math.inf)
            for instance in snapshot.instances:
                report = reports.get(instance.id)
                if report is None or not isinstance(report.images, int):
                    continue
                images[instance.id] = (report.boot_id, report.images)
                before = self._images.get(instance.id, (report.boot_id, report.images))
                if before[0] != report.boot_id or report.images > before[1]:
                    used_at[name] = now
        self._samples, self._images, self._used_at = samples, images, used_at

    def used(self, service: str, now: float) -> None:
        """Somebody wants it at this moment, though no worker has answered an image yet."""
        self._used_at[service] = now

    def load(
        self, snapshot: Snapshot, reports: Mapping[str, LoadReport], held: int, now: float
    ) -> LoadAnswer:
        """The load of a service."""
        name = snapshot.service
        rif = _rif(snapshot.instances, reports)
        recent = [each for at, each in self._samples.get(name, ()) if at >= now - _OVER_S]
        average = math.ceil(sum(recent) / len(recent)) if recent else rif
        used = now - self._used_at.get(name, -math.inf) <= _OVER_S
        return LoadAnswer(
            service=name,
            workers=len(snapshot.instances),
            rif=rif,
            held=held,
            demand=max(average, int(used)) + held,
        )


def _rif(instances: Iterable[Instance], reports: Mapping[str, LoadReport]) -> int:
    return sum(reports[each.id].rif for each in instances if each.id in reports)
