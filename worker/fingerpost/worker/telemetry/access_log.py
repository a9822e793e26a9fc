"""The access log: one line of JSON for each request for a model, written beside the event loop.

::

    {"time":"2026-10-08T19:23:52.123Z","method":"POST","path":"/v1/classify/digits","model":"digits",
     "version":"3","status":200,"error":"","body_bytes":20480,"images":1,"decode_ms":1.2,
     "queue_ms":0.1,"inference_ms":4.0,"total_ms":5.6,"client":"10.0.0.7","trace_id":""}

Handlers put entries into a bounded queue and never wait; a thread writes them. When the disk does
not keep up, lines are lost and counted, and requests are not delayed.

A file that was moved away or removed is opened again under its name, so logrotate needs no signal.
Whole lines are written in append mode, so the processes of one machine may share a file.

Rejected: the standard library's `QueueHandler` and `WatchedFileHandler`. The first prints a
traceback for each line that a full queue refuses, and its listener waits without limit for a disk
that hangs; the second keeps lines that a full disk refused, and fails again with them when it is
closed.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from prometheus_client import Counter

__all__ = ["AccessEntry", "AccessLog"]

logger = logging.getLogger(__name__)

# How long `close` waits for the queue, and then for the disk.
_CLOSE_S: Final = 2.0


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


class AccessLog:
    """Writes one line for each request; `close` writes what is waiting.

    Args:
        target: a file to append to; `-` is standard output.
        dropped: counts the lines that could not be written.
        max_waiting: lines that may wait for the disk, about 500 bytes each.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(self, target: str, *, dropped: Counter, max_waiting: int = 10_000) -> None:
        self._path = None if target == "-" else Path(target)
        self._dropped = dropped
        self._failing = False
        try:
            self._descriptor = _open(self._path) if self._path else sys.stdout.fileno()
        except OSError as error:
            raise ConfigurationError(
                f"the access log {target} cannot be opened: {error.strerror}"
            ) from error
        self._waiting: queue.Queue[AccessEntry | None] = queue.Queue(max_waiting)
        self._writer = threading.Thread(target=self._write_all, name="access log", daemon=True)
        self._writer.start()

    def write(self, entry: AccessEntry) -> None:
        """Queue a line for writing; never waits."""
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._dropped.inc()

    def close(self) -> None:
        """Write what is waiting, for at most 4 s, and close the file."""
        try:
            self._waiting.put(None, timeout=_CLOSE_S)
        except queue.Full:
            return  # the disk hangs, and so does the thread, which ends with the process
        self._writer.join(_CLOSE_S)

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            # With all that are waiting: beside a busy event loop this thread runs only every 5 ms.
            more = [self._waiting.get() for _ in range(self._waiting.qsize())]
            entries = [first, *(each for each in more if each is not None)]
            try:
                self._follow()
                os.write(self._descriptor, msgspec.json.Encoder().encode_lines(entries))
                self._failing = False
            except OSError as error:
                self._dropped.inc(len(entries))
                if not self._failing:
                    self._failing = True
                    logger.warning("the access log cannot be written: %s", error)
            if None in more:
                break
        if self._path is not None:
            os.close(self._descriptor)

    def _follow(self) -> None:
        """Open the file again if its name now belongs to another file or to none."""
        if self._path is None:
            return
        try:
            if os.path.samestat(self._path.stat(), os.fstat(self._descriptor)):
                return
        except FileNotFoundError:
            pass
        old, self._descriptor = self._descriptor, _open(self._path)
        os.close(old)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
