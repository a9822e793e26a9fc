"""A file of results, one line of JSON for each image, with which an interrupted run continues.

A line is written whole and at once, so that after a crash each image either has its line or has
none. A last line that a full disk or a power cut left unfinished is removed, and its image is
classified again.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any, Self

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ResultsLog"]


class _Line(msgspec.Struct):
    key: str
    error: Any = None


class ResultsLog:
    """An append-only file of results, locked against a second run; a context manager.

    Args:
        path: the file; it is made if it does not exist.

    Attributes:
        done: the keys (paths of images) that have a line, including those that failed.
        failed: the keys whose last line is an error.

    Raises:
        ConfigurationError: the file cannot be written, is in use by another run, or has a line
            that is not a result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.done: set[str] = set()
        self.failed: set[str] = set()
        try:
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
        try:
            if not path.is_file():
                raise ConfigurationError(f"{path} is not a regular file: give another --out")
            self._lock()
            self._read()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            os.fsync(self._file.fileno())

    def write(self, line: Any) -> None:
        """Append `line` as JSON, in one write to the file.

        Raises:
            ConfigurationError: it cannot be written, for example because the disk is full.
        """
        data = msgspec.json.encode(line) + b"\n"
        try:
            if self._file.write(data) != len(data):  # the disk is full now
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be written: {error.strerror}; "
                "the same command continues from here"
            ) from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} is being written by another run: give another --out"
            ) from error

    def _read(self) -> None:
        whole = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    self._file.truncate(whole)
                    break
                whole += len(line)
                self._read_line(line, number)

    def _read_line(self, line: bytes, number: int) -> None:
        try:
            found = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise ConfigurationError(
                f"{self._path}, line {number}, is not a result of an earlier run ({error}): "
                "give another --out"
            ) from error
        self.done.add(found.key)
        (self.failed.discard if found.error is None else self.failed.add)(found.key)
