"""What a worker counts, as Prometheus metrics with units in their names.

Everything that may differ between models carries the label `model`; a request that was refused
before its model was known counts under the empty one, so that no caller can invent label values.

prometheus-client looks a labelled child up under a lock (1 us each), so `of(model)` returns all of
a model's children, bound once; an observation is then 0.5 to 1 us.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.worker.host import VersionStatus

__all__ = ["ModelMetrics", "WorkerMetrics"]

_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_IMAGES: Final = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMetrics:
    """One model's share of `WorkerMetrics`, label values bound."""

    images: Counter
    body_bytes: Counter
    load_failures: Counter
    decode_seconds: Histogram
    queue_seconds: Histogram
    inference_seconds: Histogram
    total_seconds: Histogram
    batch_size: Histogram
    _model: str
    _requests: Counter
    _by_status: dict[int, Counter] = field(default_factory=dict)

    def requests(self, status: int) -> Counter:
        """The count of requests answered with this HTTP status; 499 is a client that left."""
        found = self._by_status.get(status)
        if found is None:
            found = self._by_status[status] = self._requests.labels(self._model, str(status))
        return found


class WorkerMetrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._models: dict[str, ModelMetrics] = {}
        self._requests = self._counter(
            "requests", "Requests for a model by HTTP status", "model", "status"
        )
        self._images = self._counter("images", "Images classified", "model")
        self._body_bytes = self._counter(
            "body_bytes", "Body bytes received straight from clients", "model"
        )
        self._load_failures = self._counter(
            "load_failures", "Versions that could not be loaded", "model"
        )
        self._decode = self._histogram("decode_seconds", "Decoding one image", _SECONDS)
        self._queue = self._histogram("queue_seconds", "Waiting for the model", _SECONDS)
        self._inference = self._histogram("inference_seconds", "One batch", _SECONDS)
        self._total = self._histogram(
            "total_seconds", "One request, from its headers to its answer", _SECONDS
        )
        self._batch_size = self._histogram("batch_size_images", "Images in one batch", _IMAGES)
        self.in_flight = self._gauge("in_flight_requests", "Requests from their headers on")
        self._queued = self._gauge("queued_images", "Images waiting for the model", "model")
        self._versions = self._gauge(
            "versions", "1 for the state that a version is in", "model", "version", "state"
        )
        self.reregistrations = self._gauge(
            "reregistrations", "Times the registry had forgotten this worker"
        )
        self.state = self._gauge("state", "0 starting, 1 ready, 2 draining, 3 failed")
        self.access_log_dropped = self._counter(
            "access_log_dropped_lines", "Access log lines that could not be written in time"
        )

    def of(self, model: str) -> ModelMetrics:
        """A model's metrics; the same object each time."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(
                images=self._images.labels(model),
                body_bytes=self._body_bytes.labels(model),
                load_failures=self._load_failures.labels(model),
                decode_seconds=self._decode.labels(model),
                queue_seconds=self._queue.labels(model),
                inference_seconds=self._inference.labels(model),
                total_seconds=self._total.labels(model),
                batch_size=self._batch_size.labels(model),
                _model=model,
                _requests=self._requests,
            )
        return found

    def render(
        self,
        *,
        rif: int,
        state: int,
        queued: Mapping[str, int],
        versions: Mapping[str, tuple[VersionStatus, ...]],
    ) -> bytes:
        """Prometheus' text, with the gauges set to this moment's values.

        Args:
            rif: requests in flight.
            state: the worker's.
            queued: images waiting for each model.
            versions: what the versions of each model are doing.
        """
        self.in_flight.set(rif)
        self.state.set(state)
        self._queued.clear()
        for model, images in queued.items():
            self._queued.labels(model).set(images)
        self._versions.clear()  # those that were removed, and the states that were left
        for model, statuses in versions.items():
            for each in statuses:
                self._versions.labels(model, each.version, each.state.value).set(1)
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"fingerpost_worker_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"fingerpost_worker_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        name = f"fingerpost_worker_{name}"
        return Histogram(name, text, ["model"], buckets=buckets, registry=self.registry)
