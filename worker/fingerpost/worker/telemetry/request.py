"""The record of one HTTP request, which its handler and the engine fill in while it is answered.

`ProtocolRoutes` opens a `RequestRecord` for each request and writes which version answers it. The
engine writes the timings of each image to the record that `current_request()` returns, so the
protocols between the two need not pass it on.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from opentelemetry.trace import Span

    from fingerpost.client.wire import TimingsMs
    from fingerpost.errors import FingerpostError
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.telemetry.metrics import ModelMetrics, WorkerMetrics

__all__ = ["CLIENT_LEFT", "MAX_TRACED_IMAGES", "RequestRecord", "current_request"]

# nginx's status for a client that closed its connection before it got the answer.
CLIENT_LEFT: Final = 499
# Images of one request that get spans of their own: a stream of 10,000 would fill any collector.
MAX_TRACED_IMAGES: Final = 64
# The bytes of a long stream are counted each time this many more have arrived.
_BYTES_STEP: Final = 1_000_000

_current: ContextVar[RequestRecord | None] = ContextVar("current_request", default=None)


def current_request() -> RequestRecord | None:
    """The record of the request that the running task works for; None outside of requests."""
    return _current.get()


class RequestRecord:
    """What is known of one request.

    A context manager: inside the `with` block `current_request()` returns it; at the end of the
    block `ended` is called with it, once.

    Args:
        request: the request.
        started: when its headers were complete, by `time.monotonic`.
        metrics: counts the bytes of its body.
        ended: writes the finished record to metrics, log and trace.

    Attributes:
        span: the trace's span of this request; None where it is not traced.
        model, version: what answers the request; empty until that is known.
        status: the HTTP status of the answer; 500 until it is known, 499 for a client that left.
        error: the code of the error that was answered; else empty.
        images: images that went through the model.
        decode_ms, queue_ms, inference_ms: the longest among the images.
        times: arrival (`time.monotonic`) and timings of the first `MAX_TRACED_IMAGES` images; only
            where the request is traced.
    """

    __slots__ = (
        "_counted_bytes",
        "_ended",
        "_metrics",
        "_token",
        "decode_ms",
        "error",
        "images",
        "inference_ms",
        "model",
        "queue_ms",
        "request",
        "span",
        "started",
        "status",
        "times",
        "version",
    )

    def __init__(
        self,
        request: RequestHead,
        started: float,
        metrics: WorkerMetrics,
        ended: Callable[[RequestRecord], None],
    ) -> None:
        self._metrics = metrics
        self._ended = ended
        self._token: Token[RequestRecord | None] | None = None
        self._counted_bytes = 0
        self.request = request
        self.started = started
        self.span: Span | None = None
        self.model = self.version = self.error = ""
        self.status = 500
        self.images = 0
        self.decode_ms = self.queue_ms = self.inference_ms = 0.0
        self.times: list[tuple[float, TimingsMs]] = []

    def served_by(self, model: str, version: str) -> None:
        """Record the model and the version that answer the request."""
        self.model, self.version = model, version

    def failed(self, error: FingerpostError) -> None:
        """Record that the request was answered with an error."""
        self.status, self.error = error.status, error.code

    def image(self, arrived: float, timings: TimingsMs) -> None:
        """Record an image that went through the model and had arrived at `arrived`."""
        self.images += 1
        if self.images == 1:  # and mostly it is the only one
            self.decode_ms, self.queue_ms = timings.decode, timings.queue
            self.inference_ms = timings.inference
        else:
            self.decode_ms = max(self.decode_ms, timings.decode)
            self.queue_ms = max(self.queue_ms, timings.queue)
            self.inference_ms = max(self.inference_ms, timings.inference)
        if self.span is not None and self.images <= MAX_TRACED_IMAGES:
            self.times.append((arrived, timings))
        if self.request.content.total_bytes - self._counted_bytes >= _BYTES_STEP:
            self.count_bytes(self._metrics.of(self.model))

    def count_bytes(self, counts: ModelMetrics) -> None:
        """Add the bytes of the body that arrived since the last call to those of its model."""
        received = self.request.content.total_bytes
        if received > self._counted_bytes:
            counts.body_bytes.inc(received - self._counted_bytes)
            self._counted_bytes = received

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._token is not None:
            _current.reset(self._token)
        if isinstance(error, asyncio.CancelledError):
            self.status = CLIENT_LEFT
        self._ended(self)
