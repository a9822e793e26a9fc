"""Counts, logs and traces each request when it ends, whether it succeeded, failed or was cancelled.

Handlers of protocols need not know of it: the routes open a `RequestRecord` for each request.
"""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fingerpost.worker.telemetry.access_log import AccessEntry, AccessLog
from fingerpost.worker.telemetry.request import RequestRecord
from fingerpost.worker.telemetry.tracing import start_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.errors import FingerpostError
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.telemetry.metrics import WorkerMetrics
    from fingerpost.worker.telemetry.tracing import Tracing

__all__ = ["Observer"]

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Observer:
    """Counts every request; logs and traces it where that is configured.

    Args:
        metrics: the worker's metrics.
        access_log: gets a line for each request; closed by `aclose`.
        tracing: makes a span of each request; closed by `aclose`.
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

    @classmethod
    def configured(
        cls,
        metrics: WorkerMetrics,
        environment: Mapping[str, str],
        *,
        access_log: str | None,
        tracing: bool,
    ) -> Observer:
        """The observer that the settings and the `OTEL_...` variables ask for.

        Args:
            access_log, tracing: see `TelemetryConfig`.
        """
        dropped = metrics.access_log_dropped
        return cls(
            metrics,
            access_log=AccessLog(access_log, dropped=dropped) if access_log else None,
            tracing=start_tracing(environment, requested=tracing),
        )

    def request(self, request: RequestHead) -> RequestRecord:
        """Open the record of a request; use it in a `with` statement."""
        record = RequestRecord(request, time.monotonic(), self.metrics, self._ended)
        if self._tracing is not None:
            record.span = self._tracing.begin(request, record.started)
        return record

    def refused(self, request: RequestHead, error: FingerpostError) -> None:
        """Record a request that was refused before its handler ran."""
        with self.request(request) as record:
            record.failed(error)

    def _ended(self, record: RequestRecord) -> None:
        ended = time.monotonic()
        counts = self.metrics.of(record.model)
        record.count_bytes(counts)
        counts.requests(record.status).inc()
        counts.total_seconds.observe(ended - record.started)
        if record.span is not None and self._tracing is not None:
            self._tracing.end(record.span, record, ended)
        if self._log is not None:
            self._log.write(_entry(record, ended))

    async def aclose(self) -> None:
        """Write and send what is waiting; bounded, see `AccessLog.close` and `Tracing.aclose`."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)
        if self._tracing is not None:
            await self._tracing.aclose()


def _entry(record: RequestRecord, ended: float) -> AccessEntry:
    request = record.request
    return AccessEntry(
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        method=request.method,
        path=request.rel_url.raw_path[:256],
        model=record.model,
        version=record.version,
        status=record.status,
        error=record.error,
        body_bytes=request.content.total_bytes,
        images=record.images,
        decode_ms=record.decode_ms,
        queue_ms=record.queue_ms,
        inference_ms=record.inference_ms,
        total_ms=round((ended - record.started) * 1000, 3),
        client=request.remote or "",
        trace_id=_trace_id(record),
    )


def _trace_id(record: RequestRecord) -> str:
    """The trace of the request's own span, else the one that the caller sent."""
    if record.span is not None:
        return f"{record.span.get_span_context().trace_id:032x}"
    match = _TRACEPARENT.match(record.request.headers.get("traceparent", ""))
    return match[1] if match else ""
