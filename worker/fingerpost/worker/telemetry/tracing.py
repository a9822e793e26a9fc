"""OpenTelemetry traces of requests (extra `otel`), off by default.

A request is a span `worker.request`, part of the caller's trace where it sent one (W3C
`traceparent`), with children `decode`, `queue` and `inference` for each image. They are made when
the request ends, from the times that the engine recorded, so that a request that is not sampled
costs only the reading of its headers.

Where spans go, how many are sampled and the name of this service are set by OpenTelemetry's
standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`,
`OTEL_SERVICE_NAME`, ...). Spans wait in the SDK's bounded queue for its own thread to send them,
and are dropped when the collector is away.

Rejected: the global tracer provider (a library that is imported later would use it unasked), gRPC
export (40 MB of grpcio for what HTTP does), and the instrumentation package of aiohttp, which does
not measure decoding, queue and inference.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.telemetry.request import RequestRecord

__all__ = ["Tracing", "start_tracing"]

logger = logging.getLogger(__name__)

# How many seconds the end of the process waits for spans that were not sent yet.
_FLUSH_S: Final = 2.0

# How many seconds the exporter has to end when it was told to give up.
_GIVE_UP_S: Final = 0.5

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Tracing:
    """Makes spans with a tracer provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider, exporter: SpanExporter | None = None) -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._exporter = exporter
        self._tracer = provider.get_tracer("fingerpost.worker", __version__)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace
        # Added to monotonic times to get nanoseconds since 1970.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def begin(self, request: RequestHead, started: float) -> Span:
        """Start the span of a request, within the caller's trace if it sent one."""
        return self._tracer.start_span(
            "worker.request",
            context=self._propagator.extract(request.headers),
            kind=self._trace.SpanKind.SERVER,
            start_time=self._ns(started),
        )

    def end(self, span: Span, record: RequestRecord, ended: float) -> None:
        """End the span of a request, with attributes, and a child for each step of its images."""
        if span.is_recording():
            context = self._trace.set_span_in_context(span)
            for time_s, timings in record.times:
                for name in ("decode", "queue", "inference"):
                    took_ms: float = getattr(timings, name)
                    child = self._tracer.start_span(name, context, start_time=self._ns(time_s))
                    time_s += took_ms / 1000
                    child.end(self._ns(time_s))
            span.set_attributes(
                {
                    "http.request.method": record.request.method,
                    "url.path": record.request.path,
                    "http.response.status_code": record.status,
                    "http.request.body.size": record.request.content.total_bytes,
                    "fingerpost.model": record.model,
                    "fingerpost.version": record.version,
                    "fingerpost.images": record.images,
                }
            )
            if record.error:
                span.set_attribute("error.type", record.error)
            if record.status >= 500:
                span.set_status(self._trace.StatusCode.ERROR, record.error or None)
        span.end(self._ns(ended))

    async def aclose(self) -> None:
        """Send the waiting spans, for at most 2 s; then they are lost."""
        # In a thread, because the SDK waits up to 30 s for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="otel", daemon=True)
        closing.start()
        await asyncio.to_thread(closing.join, _FLUSH_S)
        if closing.is_alive() and self._exporter is not None:
            # It would try on in its thread, when nobody waits for it any more.
            self._exporter.shutdown()
            await asyncio.to_thread(closing.join, _GIVE_UP_S)

    def _ns(self, seconds: float) -> int:
        return self._epoch_ns + int(seconds * 1e9)


def start_tracing(environment: Mapping[str, str], *, requested: bool) -> Tracing | None:
    """Tracing as the standard variables set it; None where neither they nor `requested` enable it.

    A variable may be set for a whole cluster. So where only a variable enables tracing and it does
    not work, the worker logs a warning and goes on without.

    Raises:
        ConfigurationError: tracing is `requested`, but the extra is not installed, or the variables
            name an exporter or a protocol that is not supported.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter == "none" or not (requested or exporter or any(map(environment.get, _ENDPOINTS))):
        return None
    try:
        return _over_otlp(environment, exporter or "otlp")
    except ConfigurationError as error:
        if requested:
            raise
        logger.warning("no traces: %s", error)
        return None


def _over_otlp(environment: Mapping[str, str], exporter: str) -> Tracing:
    protocol = next(filter(None, map(environment.get, _PROTOCOLS)), "http/protobuf")
    if exporter != "otlp" or protocol != "http/protobuf":
        raise ConfigurationError(
            f"OTEL_TRACES_EXPORTER {exporter!r} with protocol {protocol!r} is not supported: use "
            "'otlp' with 'http/protobuf', or 'none'"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigurationError(
            f"tracing needs OpenTelemetry ({error}): pip install 'fingerpost[otel]'"
        ) from error
    ours = Resource.create({"service.name": "fingerpost-worker", "service.version": __version__})
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    sender = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(sender))
    return Tracing(provider, sender)
