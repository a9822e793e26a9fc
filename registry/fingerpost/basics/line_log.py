"""Files of JSON lines, written beside the event loop: the access log, the audit log.

Handlers put entries into a bounded queue and never wait; a thread writes them. When the disk does
not keep up, lines are lost and counted, and requests are not delayed.

A file that was moved away or removed is opened again under its name, so logrotate needs no signal.
Whole lines are written in append mode, so the processes of one machine may share a file.

Rejected: the standard library's `QueueHandler`, `WatchedFileHandler` and `RotatingFileHandler`. The
first prints a traceback for each line that a full queue refuses, and its listener waits without
limit for a disk that hangs; the second keeps lines that a full disk refused, and fails again with
them when it is closed; the third loses lines where two processes share a file.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from fingerpost.errors import ConfigurationError

__all__ = ["LineLog"]

logger = logging.getLogger(__name__)

# How long `close` waits for the queue, and then for the disk.
_CLOSE_S: Final = 2.0
_ROTATED: Final = 5  # files that are kept beside the present one


class Counts(Protocol):
    """A counter, such as one of `prometheus_client`."""

    def inc(self, amount: float = 1) -> None:
        """Count."""
        ...


class LineLog:
    """Appends entries to a file as JSON lines; `close` writes what is waiting.

    Args:
        target: the file; `-` is standard output.
        name: what it is called in messages, such as `access log`.
        dropped: counts the lines that could not be written.
        max_waiting: lines that may wait for the disk, about 500 bytes each.
        mode: the rights of a new file.
        max_bytes: the file is renamed to `FILE.1`, that one to `FILE.2` and so on to `FILE.5`, when
            it has more; 0 never does that.

    Raises:
        ConfigurationError: the file cannot be opened.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str,
        dropped: Counts,
        max_waiting: int = 10_000,
        mode: int = 0o640,
        max_bytes: int = 0,
    ) -> None:
        self._path = None if target == "-" else Path(target)
        self._name = name
        self._dropped = dropped
        self._mode = mode
        self._max_bytes = max_bytes
        self._failing = False
        self._lost = 0
        self._torn = False
        try:
            self._descriptor = self._open(self._path) if self._path else sys.stdout.fileno()
        except OSError as error:
            why = error.strerror
            if error.errno == errno.ENXIO:
                why = "it is a named pipe that nobody reads; start its reader first, or name a file"
            raise ConfigurationError(f"the {name} {target} cannot be opened: {why}") from error
        self._waiting: queue.Queue[Any] = queue.Queue(max_waiting)
        self._writer = threading.Thread(target=self._write_all, name=name, daemon=True)
        self._writer.start()

    def write(self, entry: Any) -> None:
        """Queue a line for writing; never waits. `entry` is what msgspec encodes as JSON."""
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
            self._append([first, *(each for each in more if each is not None)])
            if None in more:
                break
        if self._path is not None:
            os.close(self._descriptor)

    def _append(self, entries: Sequence[Any]) -> None:
        try:
            self._follow()
            lines = msgspec.json.Encoder().encode_lines(entries)
            if self._torn:  # a full disk took the begin of the last lines only
                lines = b"\n" + lines
            written = os.write(self._descriptor, lines)
            self._torn = written < len(lines) if written else self._torn
            if written < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._dropped.inc(len(entries))
            self._lost += len(entries)
            if not self._failing:
                self._failing = True
                logger.warning("the %s cannot be written: %s", self._name, error)
            return
        if self._failing:
            self._failing = False
            logger.warning("the %s is written again: %d lines are lost", self._name, self._lost)
            self._lost = 0

    def _follow(self) -> None:
        """Open the file again if its name now belongs to another file or to none; rotate it."""
        if self._path is None:
            return
        if self._is_same() and not self._rotated():
            return
        old, self._descriptor = self._descriptor, self._open(self._path)
        self._torn = False
        os.close(old)

    def _is_same(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path or ""), os.fstat(self._descriptor))  # noqa: PTH116
        except FileNotFoundError:
            return False

    def _rotated(self) -> bool:
        """Rename a file that is too large; whether it was renamed, by whichever process."""
        path = self._path
        if not self._max_bytes or path is None:
            return False
        if os.fstat(self._descriptor).st_size < self._max_bytes:
            return False
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            if self._is_same():  # otherwise another process was faster
                for number in range(_ROTATED - 1, 0, -1):
                    older = path.with_name(f"{path.name}.{number}")
                    if older.exists():
                        older.replace(path.with_name(f"{path.name}.{number + 1}"))
                path.replace(path.with_name(f"{path.name}.1"))
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return True

    def _open(self, path: Path) -> int:
        # Without O_NONBLOCK, a named pipe that nobody reads would hold the start for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(path, flags, self._mode)
        os.set_blocking(descriptor, True)  # the thread that writes may wait
        return descriptor
