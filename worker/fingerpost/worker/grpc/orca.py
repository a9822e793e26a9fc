"""Load reports as ORCA has them: in the trailer of each answer, and out of band."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.moving_average import ewma, time_weight

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

# An `OrcaLoadReport` has the same fields each time, so their tags are written once: protobuf takes
# eight times as long for the map. Numbers are doubles, of wire type 1.
_RATE: Final = b"\x31"  # rps_fractional = 6
_UTILIZATION: Final = b"\x49"  # application_utilization = 9
_METRICS: Final = (
    "rif",
    "slots",
    "state",
    "expected_s",
    "alone_s",
    "queued_cost",
    "boot_id",
    "seq",
)


def _entry(name: str) -> bytes:
    """An entry of the map `named_metrics` = 8, up to its value."""
    key = b"\x0a%c%b\x11" % (len(name), name.encode())
    return b"\x42%c%b" % (len(key) + 8, key)


_KEYS: Final = tuple(_entry(name) for name in _METRICS)
_MESSAGE: Final = struct.Struct("<1sd1sd" + "".join(f"{len(key)}sd" for key in _KEYS))


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
        self._at = self._rate_at = time.monotonic()
        self._counted = images()
        self._per_s = 0.0
        self._utilization = 0.0

    def trailer(self, load: LoadReport) -> tuple[str, bytes]:
        """The trailer of an answer with this load."""
        return LOAD_TRAILER, self._message(load)

    def interval_s(self, request: Any) -> float:
        """The pause between two reports out of band, as an `OrcaLoadReportRequest` asks for it."""
        asked_s = request.report_interval.ToNanoseconds() / 1e9
        return max(_LEAST_INTERVAL_S, asked_s or _USUAL_INTERVAL_S)

    def report(self) -> bytes:
        """This moment's report."""
        return self._message(self._load())

    def _message(self, load: LoadReport) -> bytes:
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
        return _MESSAGE.pack(
            *(_RATE, self._per_s, _UTILIZATION, self._utilization),
            *(_KEYS[0], load.rif, _KEYS[1], load.slots, _KEYS[2], load.state),
            *(_KEYS[3], load.expected_s, _KEYS[4], load.alone_s),
            *(_KEYS[5], load.queued_cost, _KEYS[6], load.boot_id, _KEYS[7], load.seq),
        )
