"""What a worker says about itself, and how it travels.

The report rides on every response in the header `endpoint-load-metrics`, in the text form of
ORCA (Open Request Cost Aggregation, https://github.com/cncf/xds, `orca_load_report.proto`), so
that Envoy and gRPC can read it too; `GET /load` answers the same values as JSON.
"""

from __future__ import annotations

import enum
import math
from typing import Final

import msgspec

from fingerpost.errors import BadAnswer

__all__ = ["LOAD_HEADER", "LoadReport", "WorkerState"]

LOAD_HEADER: Final = "endpoint-load-metrics"


class WorkerState(enum.IntEnum):
    """Where a worker stands in its life; the number is what the ORCA header carries."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    FAILED = 3


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's load at one moment.

    Attributes:
        rif: requests in flight, counted from the arrival of the headers, so that uploads in
            progress are seen.
        slots: how many requests the worker works on at once without queueing (one full batch).
        queued_cost: megabytes of encoded images waiting for the model.
        latency_per_cost_s: seconds per megabyte of encoded image at the present load: what it
            takes where slots are free, times `rif` / `slots` where there are more requests.
        state: see `WorkerState`.
        boot_id: random number of this process, below 2**53; a new one means a restart.
        seq: grows with every report, so that an older one never replaces a newer one.
    """

    rif: int
    slots: int
    state: WorkerState
    boot_id: int
    seq: int
    queued_cost: float = 0.0
    latency_per_cost_s: float = 0.0

    def to_header(self) -> str:
        """The value of the `endpoint-load-metrics` header, in ORCA's text form."""
        return (
            f"TEXT application_utilization={self.rif / max(1, self.slots):.6g},"
            f"named_metrics.rif={self.rif},named_metrics.slots={self.slots},"
            f"named_metrics.queued_cost={self.queued_cost:.6g},"
            f"named_metrics.latency_per_cost_s={self.latency_per_cost_s:.6g},"
            f"named_metrics.state={self.state.value},"
            f"named_metrics.boot_id={self.boot_id},named_metrics.seq={self.seq}"
        )

    @classmethod
    def from_header(cls, value: str) -> LoadReport:
        """Read a report from its header; unknown metrics are passed over.

        Raises:
            BadAnswer: not ORCA's text form, a metric missing, or a number out of range.
        """
        form, _, text = value.partition(" ")
        fields: dict[str, str] = {}
        for item in text.split(","):
            key, _, number = item.strip().partition("=")
            fields[key.removeprefix("named_metrics.")] = number
        try:
            if form != "TEXT":
                raise ValueError(form)
            report = cls(
                rif=int(fields["rif"]),
                slots=int(fields["slots"]),
                state=WorkerState(int(fields["state"])),
                boot_id=int(fields["boot_id"]),
                seq=int(fields["seq"]),
                queued_cost=float(fields["queued_cost"]),
                latency_per_cost_s=float(fields["latency_per_cost_s"]),
            )
        except (KeyError, ValueError) as error:
            raise BadAnswer(f"{LOAD_HEADER}: {value[:200]!r} is no load report") from error
        figures = (report.rif, report.slots, report.queued_cost, report.latency_per_cost_s)
        if any(not math.isfinite(figure) or figure < 0 for figure in figures):
            raise BadAnswer(f"{LOAD_HEADER}: {value[:200]!r} has a figure out of range")
        return report
