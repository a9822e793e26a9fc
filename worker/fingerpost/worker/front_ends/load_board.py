"""The load of each front end in memory that all of them share, so that any one answers for all.

Each front end writes its own row, and reads those of the others for each load report. The rows are
plain numbers of 8 bytes, which processors write whole; there is no lock. The last row is written by
the first process: the images of front ends that have died, so that no count goes backwards.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import UNSET, UnsetType

from fingerpost.registry import LoadReport, WorkerState
from fingerpost.registry.load import ClassLoad

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LoadBoard", "Row"]

_FIELDS: Final = (
    *("seen_s", "rif", "slots", "state", "images"),
    *("queued_cost", "latency_per_cost_s", "expected_s", "alone_s", "classes"),
)
_SEEN, _RIF, _SLOTS, _STATE, _IMAGES, _QUEUED, _LATENCY, _EXPECTED, _ALONE, _CLASSES = range(
    len(_FIELDS)
)


@dataclass(slots=True, kw_only=True)
class Row:
    """What one front end reports.

    Attributes:
        seen_s: when it was written, on the monotonic clock; 0 while there is no process.
        images: how many it has answered since its start.
        load: the rest; its `rif` is the latest, and its boot id and number have no meaning.
    """

    seen_s: float
    images: int
    load: LoadReport


class LoadBoard:
    """The rows of all front ends.

    Args:
        descriptor: of a `memfd`; see `made`.
        count: how many front ends there are.
        classes: the names of the priority classes, first served first.
    """

    def __init__(self, descriptor: int, count: int, classes: Sequence[str]) -> None:
        self.descriptor = descriptor
        self.count = count
        self._names = tuple(classes)
        self._width = len(_FIELDS) + 2 * len(self._names)
        size = 8 * self._width * (count + 1)
        os.ftruncate(descriptor, size)
        self._cells = memoryview(mmap.mmap(descriptor, size)).cast("d")

    @classmethod
    def made(cls, count: int, classes: Sequence[str]) -> LoadBoard:
        """A board whose rows are empty."""
        return cls(os.memfd_create("fingerpost-load", os.MFD_CLOEXEC), count, classes)

    def set_rif(self, number: int, rif: int) -> None:
        """Write the requests in flight of one front end."""
        self._cells[number * self._width + _RIF] = rif

    def set_images(self, number: int, images: int) -> None:
        """Write how many images one front end has answered."""
        self._cells[number * self._width + _IMAGES] = images

    def write(self, number: int, load: LoadReport, images: int) -> None:
        """Write the row of one front end."""
        cells, at = self._cells, number * self._width
        cells[at + _SLOTS] = load.slots
        cells[at + _STATE] = load.state.value
        cells[at + _IMAGES] = images
        cells[at + _QUEUED] = load.queued_cost
        cells[at + _LATENCY] = load.latency_per_cost_s
        cells[at + _EXPECTED] = load.expected_s
        cells[at + _ALONE] = load.alone_s
        cells[at + _CLASSES] = bool(load.classes)
        if load.classes:
            place = at + len(_FIELDS)
            for name in self._names:
                each = load.classes[name]
                cells[place], cells[place + 1] = each.rif, each.expected_s
                place += 2
        cells[at + _RIF] = load.rif
        cells[at + _SEEN] = time.monotonic()

    def clear(self, number: int) -> None:
        """Empty the row of a front end that has ended, and keep its images."""
        at, last = number * self._width, self.count * self._width
        self._cells[last + _IMAGES] += self._cells[at + _IMAGES]
        for place in range(at, at + self._width):
            self._cells[place] = 0.0

    def seen_s(self, number: int) -> float:
        """When a front end has written its row, on the monotonic clock; 0 for an empty row."""
        return self._cells[number * self._width + _SEEN]

    def images(self) -> int:
        """How many images were answered, by front ends that have died too."""
        return sum(
            int(self._cells[number * self._width + _IMAGES]) for number in range(self.count + 1)
        )

    def row(self, number: int) -> Row:
        """The row of one front end."""
        cells, at = self._cells, number * self._width
        rif = int(cells[at + _RIF])
        busy = rif > 0  # what an idle one has written last was true of its last request
        classes: dict[str, ClassLoad] | UnsetType = UNSET
        if busy and cells[at + _CLASSES]:
            first = at + len(_FIELDS)
            classes = {
                name: ClassLoad(
                    rif=int(cells[first + 2 * rank]), expected_s=cells[first + 2 * rank + 1]
                )
                for rank, name in enumerate(self._names)
            }
        load = LoadReport(
            rif=rif,
            slots=int(cells[at + _SLOTS]),
            state=WorkerState(int(cells[at + _STATE])),
            boot_id=0,
            seq=0,
            queued_cost=cells[at + _QUEUED] if busy else 0.0,
            latency_per_cost_s=cells[at + _LATENCY],
            expected_s=cells[at + _EXPECTED] if busy else 0.0,
            alone_s=cells[at + _ALONE],
            classes=classes,
        )
        return Row(seen_s=cells[at + _SEEN], images=int(cells[at + _IMAGES]), load=load)

    def others(self, number: int) -> list[LoadReport]:
        """The loads of all front ends but one; of those that there are."""
        rows = [self.row(each) for each in range(self.count) if each != number]
        return [row.load for row in rows if row.seen_s]

    def merged(self, own: LoadReport, others: Sequence[LoadReport]) -> LoadReport:
        """The load of all front ends, in a report of one of them.

        Requests and what waits are added up. The model is the same, so its slots are not. The
        expected time is that of the busiest, for nobody can choose where a connection goes: so no
        client is told of a time that it may not get. One that stalls makes the whole fail.

        Args:
            own: its number is kept, and its state unless another one stalls.
            others: the loads of the others.
        """
        rif, slots, state, queued_cost = own.rif, own.slots, own.state, own.queued_cost
        expected_s, alone_s = own.expected_s, own.alone_s
        latency_per_cost_s = own.latency_per_cost_s
        for each in others:  # without `max` and `sum`, which would take most of an answer's report
            rif += each.rif
            queued_cost += each.queued_cost
            if each.slots > slots:
                slots = each.slots
            if each.latency_per_cost_s > latency_per_cost_s:
                latency_per_cost_s = each.latency_per_cost_s
            if each.expected_s > expected_s:
                expected_s, alone_s = each.expected_s, each.alone_s
            if each.state is WorkerState.FAILED:
                state = WorkerState.FAILED
        return LoadReport(
            rif=rif,
            slots=slots,
            state=state,
            boot_id=own.boot_id,
            seq=own.seq,
            queued_cost=queued_cost,
            latency_per_cost_s=latency_per_cost_s,
            expected_s=expected_s,
            alone_s=alone_s,
            tenants=own.tenants,
            classes=self._merged_classes([own, *others]) if self._names else UNSET,
        )

    def _merged_classes(self, loads: Sequence[LoadReport]) -> dict[str, ClassLoad] | UnsetType:
        if not any(each.classes for each in loads):
            return UNSET
        merged = {}
        for name in self._names:
            parts = [each.of_class(name) for each in loads]  # of the whole, where it has no classes
            merged[name] = ClassLoad(
                rif=sum(each.rif for each in parts),
                expected_s=max(each.expected_s for each in parts),
            )
        return merged
