"""A worker's load report, and its two forms on the wire.

The report is in every response in the header `endpoint-load-metrics`, in the text form of
ORCA (Open Request Cost Aggregation, https://github.com/cncf/xds, `orca_load_report.proto`), so
that Envoy and gRPC can read it too; `GET /load` answers the same values as JSON.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Annotated, Final

import msgspec

from fingerpost.errors import BadAnswer, PeerError
from fingerpost.registry.peers.answer import check_encoding, decode_answer

__all__ = [
    "LOAD_HEADER",
    "MAX_LOAD_BYTES",
    "PROBE_TIME_HEADER",
    "ClassLoad",
    "LoadReport",
    "WorkerState",
    "decode_load_report",
    "read_load_answer",
]

LOAD_HEADER: Final = "endpoint-load-metrics"
"""The response header that carries a load report, as ORCA names it."""

PROBE_TIME_HEADER: Final = "Fingerpost-Probe-Time"
"""The header of a probe with the sender's clock, in seconds since 1970."""

MAX_LOAD_BYTES: Final = 64 * 1024
"""The longest body of an answer to `GET /load`; a load report has some 150 bytes."""

# A float and most JSON parsers hold whole numbers below 2**53 exactly.
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Figure = Annotated[float, msgspec.Meta(ge=0.0, le=1e300)]


# Before the name of a class in the names of its metrics.
_CLASS: Final = "class_rif."
_EXPECTED: Final = "class_expected_s."
_MAX_CLASSES: Final = 16


class WorkerState(enum.IntEnum):
    """The state of a worker process; the number is what the ORCA header carries."""

    STARTING = 0
    READY = 1
    DRAINING = 2
    FAILED = 3


class ClassLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker's load is to images of one priority class.

    Attributes:
        rif: requests in flight of the class, and of those that go before it.
        expected_s: seconds until the answer to an image of the class that came now.
    """

    rif: _Count
    expected_s: _Figure = 0.0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A worker's load at one moment.

    Attributes:
        rif: requests in flight, counted from the arrival of the headers, so that uploads in
            progress are seen.
        slots: how many requests the worker works on at once, as it measured: the time of a lone
            request, times the requests a second that it can answer.
        queued_cost: megabytes of encoded images waiting for the model.
        latency_per_cost_s: seconds per megabyte of encoded image at the present load: what it
            takes where slots are free, times `rif` / `slots` where there are more requests.
        state: see `WorkerState`.
        boot_id: random number of this process, below 2**53; a new one means a restart.
        seq: grows with every report, so that an older one never replaces a newer one.
        expected_s: seconds until the answer to an image that came now; 0 while unknown.
        alone_s: the same where it would be the only one there; 0 while unknown.
        tenants: how many tenants have images that wait, where it is more than one. The expected
            time is then that of an image of the receiver's tenant, if the worker knows it.
        classes: by priority class, the one that goes first before the others; empty where all
            images lately were of the first class.
        images: images that this process has answered since it started; in answers to `GET /load`
            alone, not in the header.
    """

    rif: _Count
    slots: _Count
    state: WorkerState
    boot_id: _Count
    seq: _Count
    queued_cost: _Figure = 0.0
    latency_per_cost_s: _Figure = 0.0
    expected_s: _Figure = 0.0
    alone_s: _Figure = 0.0
    tenants: _Count | msgspec.UnsetType = msgspec.UNSET
    classes: dict[str, ClassLoad] | msgspec.UnsetType = msgspec.UNSET
    images: _Count | msgspec.UnsetType = msgspec.UNSET

    def of_class(self, name: str | None) -> LoadReport:
        """The report as it concerns images of a class; None is the first one."""
        if not self.classes:
            return self
        found = self.classes.get(name or next(iter(self.classes)))
        if found is None:
            return self
        slots = max(1, self.slots)
        return msgspec.structs.replace(
            self,
            rif=found.rif,
            expected_s=found.expected_s,
            latency_per_cost_s=self.latency_per_cost_s
            / max(1.0, self.rif / slots)
            * max(1.0, found.rif / slots),
        )

    def to_header(self) -> str:
        """The value of the `endpoint-load-metrics` header, in ORCA's text form."""
        return (
            f"TEXT application_utilization={_text(self.rif / max(1, self.slots))},"
            f"named_metrics.rif={self.rif},named_metrics.slots={self.slots},"
            f"named_metrics.queued_cost={_text(self.queued_cost)},"
            f"named_metrics.latency_per_cost_s={_text(self.latency_per_cost_s)},"
            f"named_metrics.state={self.state:d},"
            f"named_metrics.boot_id={self.boot_id},named_metrics.seq={self.seq},"
            f"named_metrics.expected_s={_text(self.expected_s)},"
            f"named_metrics.alone_s={_text(self.alone_s)}"
            f"{f',named_metrics.tenants={self.tenants}' if self.tenants else ''}"
            f"{self._classes_text() if self.classes else ''}"
        )

    def _classes_text(self) -> str:
        return "".join(
            f",named_metrics.{_CLASS}{name}={load.rif},"
            f"named_metrics.{_EXPECTED}{name}={load.expected_s:.6g}"
            for name, load in (self.classes or {}).items()
        )

    @classmethod
    def from_header(cls, value: str) -> LoadReport:
        """Read a report from its header; metrics with other names are ignored.

        `expected_s` and `alone_s` may be missing: workers of older releases do not send them.

        Raises:
            BadAnswer: not ORCA's text form, a metric is missing, or a number is out of range.
        """
        form, _, text = value.partition(" ")
        fields: dict[str, str] = {}
        for item in text.split(","):
            key, _, number = item.strip().partition("=")
            fields[key.removeprefix("named_metrics.")] = number
        try:
            if form != "TEXT":
                raise ValueError(f"its form is {form[:20]!r}, not TEXT")
            if _CLASS in text:
                classes = [each for each in fields if each.startswith(_CLASS)]
                values = {
                    each.removeprefix(_CLASS): {
                        "rif": fields[each],
                        "expected_s": fields.get(each.replace(_CLASS, _EXPECTED, 1), "0"),
                    }
                    for each in classes[:_MAX_CLASSES]
                }
                return msgspec.convert({**fields, "classes": values}, cls, strict=False)
            # Metrics with other names are passed over, and a missing one is a ValueError.
            return msgspec.convert(fields, cls, strict=False)
        except ValueError as error:
            raise BadAnswer(
                f"{LOAD_HEADER}: {value[:200]!r} is not a valid load report: {error}"
            ) from error


@lru_cache(maxsize=1024)  # of the reports of a moment most figures are the same
def _text(figure: float) -> str:
    return f"{figure:.6g}"


_decoder: Final = msgspec.json.Decoder(LoadReport)


def decode_load_report(body: bytes, peer: str) -> LoadReport:
    """Read the body of an answer to `GET /load`.

    Args:
        body: JSON, as it came.
        peer: names the worker in errors, such as `10.0.0.7:8501`.

    Raises:
        BadAnswer: for every body that is not a valid load report: longer than `MAX_LOAD_BYTES`, not
            UTF-8, not JSON, nested too deeply, a field missing, or a number out of range.
    """
    if len(body) > MAX_LOAD_BYTES:
        raise BadAnswer(f"{peer}/load: an answer of more than {MAX_LOAD_BYTES} bytes")
    return decode_answer(_decoder, body, f"{peer}/load", "load report")


def read_load_answer(status: int, encoding: str, body: bytes, peer: str) -> LoadReport:
    """Read an answer to `GET /load`, whichever client received it.

    Args:
        status: the HTTP status.
        encoding: the field `Content-Encoding`; empty where there is none.
        body: as it came.
        peer: names the worker in errors, such as `10.0.0.7:8501`.

    Raises:
        PeerError: a status of 500 or more: the worker is in trouble.
        BadAnswer: any other status than 200, redirects included; a compressed body; and see
            `decode_load_report`.
    """
    if status >= 500:
        raise PeerError(f"{peer}/load: HTTP {status}")
    if status != 200:
        raise BadAnswer(f"{peer}/load: HTTP {status}")
    check_encoding(encoding, f"{peer}/load")
    return decode_load_report(body, peer)
