"""OpenTelemetry traces of a client's images (extra `otel`), off unless passed to the client.

Each image is a span `client.classify`, a child of the caller's current span if there is one, from
the call to the result with all attempts in between. The worker gets its context as W3C
`traceparent`, so that the worker's span is a child of it.

Rejected: switching it on by an environment variable, as a worker does (a library uses the tracer
provider that its program has set up, or none), and the instrumentation package for aiohttp, which
knows nothing about models and attempts, and would trace probes and lookups too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Span, TracerProvider

    from fingerpost.client.result import Result

__all__ = ["Tracing"]


class Tracing:
    """Makes the spans of a client: `Client(tracing=Tracing())`.

    Args:
        provider: the tracer provider; the program's global one if None.

    Raises:
        ConfigurationError: the extra `otel` is not installed.
    """

    def __init__(self, provider: TracerProvider | None = None) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise ConfigurationError(
                f"tracing needs OpenTelemetry ({error}): pip install 'fingerpost[otel]'"
            ) from error
        self._provider = provider
        self._tracer = trace.get_tracer("fingerpost.client", __version__, provider)
        self._propagator = TraceContextTextMapPropagator()
        self._trace = trace

    def __reduce__(self) -> tuple[type[Tracing], tuple[TracerProvider | None]]:
        return Tracing, (self._provider,)

    def begin(self, model: str) -> tuple[Span, Mapping[str, str]]:
        """A new span for an image, and the headers that pass its context to a worker."""
        span = self._tracer.start_span(
            "client.classify",
            kind=self._trace.SpanKind.CLIENT,
            attributes={"fingerpost.model": model},
        )
        headers: dict[str, str] = {}
        self._propagator.inject(headers, self._trace.set_span_in_context(span))
        return span, headers

    def note(self, span: Span, result: Result) -> None:
        """Record the image's result in its span."""
        if not span.is_recording():
            return
        span.set_attributes(
            {
                "fingerpost.version": result.version,
                "fingerpost.worker": result.worker,
                "fingerpost.attempts": result.attempts,
                "fingerpost.retried": result.retried,
                "http.request.body.size": result.image_bytes,
                "fingerpost.address": result.address,
            }
        )
        if result.relay:
            span.set_attribute("fingerpost.relay", result.relay)
        if result.error is not None:
            span.set_attribute("error.type", result.error.code)
            span.set_status(self._trace.StatusCode.ERROR, str(result.error))
