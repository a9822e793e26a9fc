"""A file of results that a further run goes on with: one line of JSON an image.

A line is written whole and at once, so that after a crash each image either has its line or has
none; a last line that a full disk or a power cut left unfinished is cut off and done again.
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

__all__ = ["Journal"]


class _Line(msgspec.Struct):
    key: str
    error: Any = None


class Journal:
    """The lines of `path`, which is made where there is none; a context manager.

    Attributes:
        done: the keys that have a line already, those that failed among them.
        failed: of those, the ones whose line is an error.

    Raises:
        ConfigurationError: the file cannot be written, is in use by another run, or holds lines
            that are no results.
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
                raise ConfigurationError(f"{path} is no file that can be gone on with")
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
        """Add a line, and hand it to the system at once.

        Raises:
            ConfigurationError: it cannot be written, as on a full disk.
        """
        data = msgspec.json.encode(line) + b"\n"
        try:
            if self._file.write(data) != len(data):  # the disk is full now
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ConfigurationError(
                f"{self._path} cannot be written: {error.strerror}; "
                "the same command goes on from here"
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
                self._take(line, number)

    def _take(self, line: bytes, number: int) -> None:
        try:
            found = msgspec.json.decode(line, type=_Line)
        except msgspec.MsgspecError as error:
            raise ConfigurationError(
                f"{self._path}, line {number}, is no result of an earlier run ({error}): "
                "give another --out"
            ) from error
        self.done.add(found.key)
        (self.failed.discard if found.error is None else self.failed.add)(found.key)
