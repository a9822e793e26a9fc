"""The metrics of a worker, for Prometheus, with units in their names.

Metrics that differ between models have the label `model`; a request that was refused before its
model was known counts under the empty one, so that callers cannot create label values.

What is counted for every request or image is counted in plain numbers, by the event loop alone, and
becomes Prometheus samples when `/metrics` is read: 0.1 us an observation, where the classes of
prometheus-client take a lock and 0.5 to 1 us. The rest are counters and gauges of that library.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from fingerpost.registry.process_metrics import add_process_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from fingerpost.security.tls import ServerTls
    from fingerpost.worker.models.status import VersionStatus

__all__ = ["ModelMetrics", "TenantMetrics", "UnlockedCounter", "UnlockedHistogram", "WorkerMetrics"]

_SECONDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
_IMAGES: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_PREFIX: Final = "fingerpost_worker_"
_MAX_TENANTS: Final = 100

# Help texts, by the attribute of `ModelMetrics`.
_COUNTERS: Final = {
    "images": "Images classified",
    "body_bytes": "Body bytes received straight from clients",
    "load_failures": "Versions that could not be loaded",
}
_HISTOGRAMS: Final = {
    "decode_seconds": "Decoding one image",
    "queue_seconds": "Waiting for the model",
    "inference_seconds": "One batch",
    "total_seconds": "One request, from its headers to its answer",
    "batch_size_images": "Images in one batch",
}


class UnlockedCounter:
    """A counter without a lock, for the event loop alone."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def inc(self, by: int = 1) -> None:
        """Add `by`."""
        self.value += by


class UnlockedHistogram:
    """A histogram without a lock, for the event loop alone.

    Args:
        bounds: the upper bounds of its buckets, ascending; the last bucket has none.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative buckets as Prometheus has them: upper bound, number of values up to it."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class ModelMetrics:
    """The metrics of one model, for the event loop alone."""

    def __init__(self) -> None:
        self.images = UnlockedCounter()
        self.body_bytes = UnlockedCounter()
        self.load_failures = UnlockedCounter()
        self.decode_seconds = UnlockedHistogram(_SECONDS)
        self.queue_seconds = UnlockedHistogram(_SECONDS)
        self.inference_seconds = UnlockedHistogram(_SECONDS)
        self.total_seconds = UnlockedHistogram(_SECONDS)
        self.batch_size_images = UnlockedHistogram(_IMAGES)
        self.by_status: dict[int, UnlockedCounter] = {}

    def requests(self, status: int) -> UnlockedCounter:
        """The counter of requests with this HTTP status; 499 is a client that left."""
        found = self.by_status.get(status)
        if found is None:
            found = self.by_status[status] = UnlockedCounter()
        return found


class TenantMetrics:
    """Images and refusals by tenant and class, for the event loop alone.

    The first 100 tenants have samples of their own; those of all others are together as `other`.
    """

    def __init__(self) -> None:
        self.images: dict[tuple[str, str], int] = {}
        self.refusals: dict[tuple[str, str, str], int] = {}
        self._tenants: set[str] = set()

    def answered(self, tenant: str, name: str, images: int) -> None:
        """Count images of requests that have ended; `name` is their class."""
        key = (tenant, name)
        if key not in self.images:
            key = (self._known(tenant), name)
            self.images.setdefault(key, 0)
        self.images[key] += images

    def refused(self, tenant: str, name: str, limit: str) -> None:
        """Count a refusal, by the tenant's limit; `queue` is the worker's own."""
        key = (self._known(tenant), name, limit or "queue")
        self.refusals[key] = self.refusals.get(key, 0) + 1

    def collect(self) -> Iterable[Metric]:
        """The samples; none where there was no request with a tenant or a class."""
        if not self.images and not self.refusals:
            return
        images = CounterMetricFamily(
            f"{_PREFIX}tenant_images", "Images by tenant and class", labels=["tenant", "class"]
        )
        for key, count in self.images.items():
            images.add_metric(key, count)
        yield images
        refusals = CounterMetricFamily(
            f"{_PREFIX}tenant_refused_requests",
            "Requests refused for overload, by tenant, class and limit",
            labels=["tenant", "class", "limit"],
        )
        for labels, count in self.refusals.items():
            refusals.add_metric(labels, count)
        yield refusals

    def _known(self, tenant: str) -> str:
        if tenant not in self._tenants:
            if len(self._tenants) >= _MAX_TENANTS:
                return "other"
            self._tenants.add(tenant)
        return tenant


class WorkerMetrics(Collector):
    """The metrics of one worker, in a `CollectorRegistry` of their own.

    Args:
        tls: the certificate that the worker serves with.
    """

    def __init__(self, tls: ServerTls | None = None) -> None:
        self.registry = CollectorRegistry()
        add_process_metrics(self.registry, tls)
        self._models: dict[str, ModelMetrics] = {}
        self.tenants = TenantMetrics()
        self.registry.register(self)
        self.in_flight = self._gauge("in_flight_requests", "Requests from their headers on")
        self._queued = self._gauge("queued_images", "Images waiting for the model", "model")
        self._versions = self._gauge(
            "versions", "1 for the state that a version is in", "model", "version", "state"
        )
        self.reregistrations = self._gauge(
            "reregistrations", "Times the registry had forgotten this worker"
        )
        self.state = self._gauge("state", "0 starting, 1 ready, 2 draining, 3 failed")
        self._body_memory = self._gauge("body_memory_bytes", "Bodies of requests that are held now")
        self._body_memory_limit = self._gauge(
            "body_memory_limit_bytes", "Most of them at once (--max-memory)"
        )
        self.admin_denied = Counter(
            f"{_PREFIX}admin_denied_requests",
            "Requests to the admin API that were refused",
            registry=self.registry,
        )
        self.lease_refused = Counter(
            f"{_PREFIX}lease_refused_requests",
            "Requests refused for want of a valid lease, by the code of the error",
            ["code"],
            registry=self.registry,
        )
        self.zmq_dropped = Counter(
            f"{_PREFIX}zmq_dropped_clients",
            "Clients of ZeroMQ that were disconnected or refused, by the reason",
            ["reason"],
            registry=self.registry,
        )
        self.grpc_calls = Counter(
            f"{_PREFIX}grpc_calls",
            "Calls of gRPC that were answered, by method and status",
            ["method", "code"],
            registry=self.registry,
        )
        self.access_log_dropped = Counter(
            f"{_PREFIX}access_log_dropped_lines",
            "Access log lines that could not be written in time",
            registry=self.registry,
        )

    @property
    def images(self) -> int:
        """How many images were classified since the start, of all models."""
        return sum(each.images.value for each in self._models.values())

    def of(self, model: str) -> ModelMetrics:
        """The metrics of a model; the same object each time."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics()
        return found

    def collect(self) -> Iterable[Metric]:
        """The metrics of all models as Prometheus samples; called by `CollectorRegistry`."""
        requests = CounterMetricFamily(
            f"{_PREFIX}requests",
            "Requests for a model by HTTP status",
            labels=["model", "status"],
        )
        for model, metrics in self._models.items():
            for status, count in metrics.by_status.items():
                requests.add_metric([model, str(status)], count.value)
        yield requests
        yield from self.tenants.collect()
        for name, text in _COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, text, labels=["model"])
            for model, metrics in self._models.items():
                counter.add_metric([model], getattr(metrics, name).value)
            yield counter
        for name, text in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(_PREFIX + name, text, labels=["model"])
            for model, metrics in self._models.items():
                values: UnlockedHistogram = getattr(metrics, name)
                histogram.add_metric([model], values.buckets(), values.sum)
            yield histogram

    def render(
        self,
        *,
        rif: int,
        state: int,
        body_memory: tuple[int, int],
        queued: Mapping[str, int],
        versions: Mapping[str, tuple[VersionStatus, ...]],
    ) -> bytes:
        """The text for Prometheus, with the gauges set to the given values.

        Args:
            rif: requests in flight.
            state: the worker's state.
            body_memory: bytes of requests' bodies that are held, and the most at once.
            queued: images waiting, by model.
            versions: the state of each version, by model.
        """
        self.in_flight.set(rif)
        self.state.set(state)
        self._body_memory.set(body_memory[0])
        self._body_memory_limit.set(body_memory[1])
        self._queued.clear()
        for model, images in queued.items():
            self._queued.labels(model).set(images)
        self._versions.clear()  # removed versions and past states
        for model, statuses in versions.items():
            for each in statuses:
                self._versions.labels(model, each.version, each.state.value).set(1)
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(_PREFIX + name, text, labels, registry=self.registry)
