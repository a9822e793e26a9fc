"""A request as it is seen from outside: counted, logged and traced when it ends, however it ends.

Protocols need not know: the door (`Admission`) opens an `Observed` for each request and says which
version answers, and the engine tells the one it works for, `observed()`, when each image was where.
"""

from __future__ import annotations

import asyncio
import re
import time
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from fingerpost.worker.telemetry.access_log import AccessEntry, AccessLog
from fingerpost.worker.telemetry.tracing import MAX_TRACED_IMAGES, Tracing

if TYPE_CHECKING:
    from types import TracebackType

    from aiohttp import web
    from opentelemetry.trace import Span

    from fingerpost.client.wire import TimingsMs
    from fingerpost.errors import FingerpostError
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["Observed", "Observer", "observed"]

_LEFT: Final = 499  # nginx's status for a client that went away before its answer
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# A long stream's bytes are counted whenever this many more have come.
_BYTES_STEP: Final = 1_000_000

_current: ContextVar[Observed | None] = ContextVar("observed", default=None)


def observed() -> Observed | None:
    """The request that the present task works for, if there is one."""
    return _current.get()


class Observed:
    """One request. A context manager: within it `observed()` returns it, at its end it is counted.

    Attributes:
        model, version: who answers, once that is known.
        status: HTTP's; 500 until something better is known.
        error: the error's code.
        images: images that went through the model.
        decode_ms, queue_ms, inference_ms: the longest among the images.
        times: of the first images, if the request is traced: when they arrived, and how long each
            step took.
    """

    __slots__ = (
        "_counted_bytes",
        "_observer",
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

    def __init__(self, observer: Observer, request: web.Request, started: float) -> None:
        self._observer = observer
        self._token: Token[Observed | None] | None = None
        self._counted_bytes = 0
        self.request = request
        self.started = started
        self.span: Span | None = None
        self.model = self.version = self.error = ""
        self.status = 500
        self.images = 0
        self.decode_ms = self.queue_ms = self.inference_ms = 0.0
        self.times: list[tuple[float, TimingsMs]] = []

    def served_by(self, served: ServedVersion) -> None:
        """This version answers."""
        self.model, self.version = served.model, served.version

    def failed(self, error: FingerpostError) -> None:
        """The answer is this error."""
        self.status, self.error = error.status, error.code

    def image(self, arrived: float, timings: TimingsMs) -> None:
        """An image that was here at `arrived`, by `time.monotonic`, went through."""
        self.images += 1
        self.decode_ms = max(self.decode_ms, timings.decode)
        self.queue_ms = max(self.queue_ms, timings.queue)
        self.inference_ms = max(self.inference_ms, timings.inference)
        if self.span is not None and self.images <= MAX_TRACED_IMAGES:
            self.times.append((arrived, timings))
        if self.request.content.total_bytes - self._counted_bytes >= _BYTES_STEP:
            self.count_bytes()

    def count_bytes(self) -> None:
        """Count what came of the body since the last time."""
        received = self.request.content.total_bytes
        if received > self._counted_bytes:
            self._observer.metrics.of(self.model).body_bytes.inc(received - self._counted_bytes)
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
            self.status = _LEFT
        self._observer.ended(self)


class Observer:
    """Counts every request, and logs and traces it where that was asked for.

    Args:
        access_log, tracing: closed with it.
    """

    def __init__(
        self,
        metrics: WorkerMetrics,
        *,
        access_log: AccessLog | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.metrics = metrics
        self._log = access_log
        self._tracing = tracing

    def request(self, request: web.Request) -> Observed:
        """Begin; `with` it."""
        seen = Observed(self, request, time.monotonic())
        if self._tracing is not None:
            seen.span = self._tracing.begin(request, seen.started)
        return seen

    def refused(self, request: web.Request, error: FingerpostError) -> None:
        """A request that was answered before it was let in."""
        with self.request(request) as seen:
            seen.failed(error)

    def ended(self, seen: Observed) -> None:
        """Write down a request; called by `Observed`, once."""
        ended = time.monotonic()
        seen.count_bytes()
        counts = self.metrics.of(seen.model)
        counts.requests(seen.status).inc()
        counts.total_seconds.observe(ended - seen.started)
        if seen.span is not None and self._tracing is not None:
            self._tracing.end(seen.span, seen, ended)
        if self._log is not None:
            self._log.write(_entry(seen, ended))

    async def aclose(self) -> None:
        """Write and send what waits; bounded, see `AccessLog.close` and `Tracing.aclose`."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)
        if self._tracing is not None:
            await self._tracing.aclose()


def _entry(seen: Observed, ended: float) -> AccessEntry:
    request = seen.request
    return AccessEntry(
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        method=request.method,
        path=request.rel_url.raw_path[:256],
        model=seen.model,
        version=seen.version,
        status=seen.status,
        error=seen.error,
        body_bytes=request.content.total_bytes,
        images=seen.images,
        decode_ms=seen.decode_ms,
        queue_ms=seen.queue_ms,
        inference_ms=seen.inference_ms,
        total_ms=round((ended - seen.started) * 1000, 3),
        client=request.remote or "",
        trace_id=_trace_id(seen),
    )


def _trace_id(seen: Observed) -> str:
    """Of our own span, else of the caller's, whoever traces it."""
    if seen.span is not None:
        return f"{seen.span.get_span_context().trace_id:032x}"
    match = _TRACEPARENT.match(seen.request.headers.get("traceparent", ""))
    return match[1] if match else ""
