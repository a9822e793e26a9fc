"""What a worker counts, as Prometheus metrics with units in their names."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["WorkerMetrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class WorkerMetrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "fingerpost_worker_requests",
            "Classify requests by HTTP status",
            ["status"],
            registry=self.registry,
        )
        self.images = Counter(
            "fingerpost_worker_images", "Images classified", registry=self.registry
        )
        self.body_bytes = Counter(
            "fingerpost_worker_body_bytes",
            "Body bytes received straight from clients",
            registry=self.registry,
        )
        self.decode_seconds = self._histogram("decode_seconds", "Decoding one image", _SECONDS)
        self.queue_seconds = self._histogram("queue_seconds", "Waiting for the model", _SECONDS)
        self.inference_seconds = self._histogram("inference_seconds", "One batch", _SECONDS)
        self.batch_size = self._histogram(
            "batch_size_images", "Images in one batch", (1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.in_flight = self._gauge("in_flight_requests", "Requests from their headers on")
        self.queued = self._gauge("queued_images", "Images waiting for the model")
        self.reregistrations = self._gauge(
            "reregistrations", "Times the registry had forgotten this worker"
        )
        self.state = self._gauge("state", "0 starting, 1 ready, 2 draining, 3 failed")

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        name = f"fingerpost_worker_{name}"
        return Histogram(name, text, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"fingerpost_worker_{name}", text, registry=self.registry)
