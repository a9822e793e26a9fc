"""The access log: one line of JSON for each request for a model, written beside the event loop.

::

    {"time":"2026-10-08T19:23:52.123Z","method":"POST","path":"/v1/classify/digits","model":"digits",
     "version":"3","status":200,"error":"","body_bytes":20480,"images":1,"decode_ms":1.2,
     "queue_ms":0.1,"inference_ms":4.0,"total_ms":5.6,"client":"10.0.0.7","trace_id":""}

Handlers put entries into a bounded queue and never wait; a thread writes them. When the disk does
not keep up, lines are lost and counted rather than requests delayed: a log is not worth an answer.

A file that was moved away or removed is opened again under its name, so that logrotate needs no
signal. Whole lines are written in append mode, so that the processes of one machine may share a
file.

Rejected: the standard library's `QueueHandler` and `WatchedFileHandler`. The one prints a traceback
for each line that a full queue refuses, and its listener waits without end for a disk that hangs;
the other keeps lines that a full disk refused, and fails again with them when it is closed.
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
    """One line. Times are the longest among the request's images, 0 where there was none.

    Attributes:
        time: the end of the request, UTC.
        path: without the query; cut at 256 characters.
        model, version: what answered; empty for a request refused before that was known.
        status: 499 where the client left before the answer.
        error: the error's code, else empty.
        body_bytes: of the body as it arrived.
        client: the peer's address; a proxy's, where one is between.
        trace_id: of the trace that the request belongs to, else empty.
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
    """Open from construction on; `close` writes what waits.

    Args:
        target: a file, appended to; `-` is standard output.
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
        """Have a line written soon; never waits."""
        try:
            self._waiting.put_nowait(entry)
        except queue.Full:
            self._dropped.inc()

    def close(self) -> None:
        """Write what waits, for 4 s at the most, and close the file."""
        try:
            self._waiting.put(None, timeout=_CLOSE_S)
        except queue.Full:
            return  # the disk hangs, and the thread in it: it ends with the process
        self._writer.join(_CLOSE_S)

    def _write_all(self) -> None:
        while (first := self._waiting.get()) is not None:
            # With all that wait: a busy event loop gives this thread a turn only every 5 ms.
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
        """Open the file again if another one, or none, has its name now."""
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
