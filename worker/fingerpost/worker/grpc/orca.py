"""Load reports as ORCA has them: in the trailer of each answer, and out of band."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from fingerpost.registry.moving_average import ewma, time_weight
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.registry import LoadReport

__all__ = ["LOAD_TRAILER", "OrcaReports"]

LOAD_TRAILER: Final = "endpoint-load-metrics-bin"
# Between two values of the rate.
_SAMPLE_S: Final = 0.5
# A report out of band each second is what gRPC's own balancer can use; it asks for one in ten.
_LEAST_INTERVAL_S: Final = 0.1
_USUAL_INTERVAL_S: Final = 1.0


class OrcaReports:
    """Makes ORCA's messages of load reports.

    A balancer that weighs by ORCA divides the requests a second by the utilization: both are
    averages of about a second here, because a worker that is idle in one moment would have no
    weight.

    Args:
        load: makes this moment's load report.
        images: how many images were answered so far.
    """

    def __init__(self, load: Callable[[], LoadReport], images: Callable[[], int]) -> None:
        self._load = load
        self._images = images
        self._class = message_class("xds.data.orca.v3.OrcaLoadReport")
        self._at = self._rate_at = time.monotonic()
        self._counted = images()
        self._per_s = 0.0
        self._utilization = 0.0

    def trailer(self, load: LoadReport) -> tuple[str, bytes]:
        """The trailer of an answer with this load."""
        found: bytes = self._message(load).SerializeToString()
        return LOAD_TRAILER, found

    def interval_s(self, request: Any) -> float:
        """The pause between two reports out of band, as an `OrcaLoadReportRequest` asks for it."""
        asked_s = request.report_interval.ToNanoseconds() / 1e9
        return max(_LEAST_INTERVAL_S, asked_s or _USUAL_INTERVAL_S)

    def report(self) -> bytes:
        """This moment's report."""
        found: bytes = self._message(self._load()).SerializeToString()
        return found

    def _message(self, load: LoadReport) -> Any:
        now = time.monotonic()
        weight = time_weight(now - self._at, 0.02, 0.9)
        self._at = now
        # The answer that carries the report is no longer in flight.
        utilization = max(1, load.rif) / max(1, load.slots)
        self._utilization = ewma(self._utilization or utilization, utilization, weight)
        passed_s = now - self._rate_at
        if passed_s >= _SAMPLE_S:
            images = self._images()
            rate = (images - self._counted) / passed_s
            self._per_s = ewma(self._per_s or rate, rate, time_weight(passed_s, 0.5, 0.9))
            self._rate_at, self._counted = now, images
        report = self._class(application_utilization=self._utilization, rps_fractional=self._per_s)
        metrics = report.named_metrics
        metrics["rif"] = load.rif
        metrics["slots"] = load.slots
        metrics["state"] = load.state
        metrics["expected_s"] = load.expected_s
        metrics["alone_s"] = load.alone_s
        metrics["queued_cost"] = load.queued_cost
        metrics["boot_id"] = load.boot_id
        metrics["seq"] = load.seq
        return report
