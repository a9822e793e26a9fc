"""The access log: one line of JSON for each request for a model, written beside the event loop.

::

    {"time":"2026-10-08T19:23:52.123Z","method":"POST","path":"/v1/classify/digits","model":"digits",
     "version":"3","status":200,"error":"","body_bytes":20480,"images":1,"decode_ms":1.2,
     "queue_ms":0.1,"inference_ms":4.0,"total_ms":5.6,"client":"10.0.0.7","trace_id":""}

See `LineLog` for how it is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.basics.line_log import LineLog

if TYPE_CHECKING:
    from prometheus_client import Counter

__all__ = ["AccessEntry", "AccessLog"]


class AccessEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the access log.

    Attributes:
        time: the end of the request, UTC, ISO 8601.
        method: HTTP's.
        path: without the query; cut at 256 characters.
        model, version: what answered; empty for a request that was refused before they were known.
        status: HTTP's; 499 where the client left before the answer.
        error: the code of the error, else empty.
        body_bytes: bytes of the body that arrived.
        images: images that went through the model.
        decode_ms, queue_ms, inference_ms: the longest among the images, in milliseconds; 0 without
            images.
        total_ms: milliseconds from the headers to the end of the answer.
        client: the address of the peer; of the proxy, where one is between.
        trace_id: the trace that the request belongs to, else empty.
    """

    time: str
    method: str
    path: str
    model: str
    version: str
    status: int
    error: str
    body_bytes: int
    images: int
    decode_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float
    client: str
    trace_id: str


class AccessLog(LineLog):
    """Writes one line for each request, an `AccessEntry`; `close` writes what is waiting.

    Args:
        target: a file to append to; `-` is standard output.
        dropped: counts the lines that could not be written.
        max_waiting: lines that may wait for the disk, about 500 bytes each.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, target: str, *, dropped: Counter, max_waiting: int = 10_000) -> None:
        super().__init__(target, name="access log", dropped=dropped, max_waiting=max_waiting)
