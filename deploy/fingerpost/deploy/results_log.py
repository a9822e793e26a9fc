"""A file of results, one line of JSON for each image, with which an interrupted run continues.

A line is written whole and at once, so that after a crash each image either has its line or has
none. A last line that a full disk or a power cut left unfinished is removed, and its image is
classified again.

Each line names the run that it belongs to: the model that was asked for, and the options that
change results. A run with others would take these results as its own, so it is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any, Self

import msgspec

from fingerpost.deploy.file_names import name_from_json, name_to_json
from fingerpost.errors import ConfigurationError
from fingerpost.registry import ModelReference

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ResultsLog", "ResultsOf"]


class ResultsOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the results of a file belong to: the same for each line.

    Attributes:
        model: the model as it was asked for: `digits`, `digits@3` or `digits@stable`.
        top: how many predictions a line has.
        shrink: whether the images were scaled down before they were sent.
    """

    model: str
    top: int = 5
    shrink: bool = False

    def __str__(self) -> str:
        return f"--model {self.model} --top {self.top}{' --shrink' if self.shrink else ''}"


class _Line(msgspec.Struct):
    key: str
    key_base64: str | None = None
    error: Any = None
    run: ResultsOf | None = None
    model: str | None = None


class ResultsLog:
    """An append-only file of results, locked against a second run; a context manager.

    Args:
        path: the file; it is made if it does not exist.
        run: what its results belong to; each line gets it.

    Attributes:
        done: the keys (paths of images) that have a line, including those that failed.
        failed: the keys whose last line is an error.

    Raises:
        ConfigurationError: the file cannot be written, is in use by another run, has a line that
            is not a result, or has results of another model or with other options.
    """

    def __init__(self, path: Path, run: ResultsOf) -> None:
        self._path = path
        self._run = run
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

    def write(self, key: str, line: dict[str, Any]) -> None:
        """Append a line of JSON for the image `key`, in one write to the file.

        Raises:
            ConfigurationError: it cannot be written, for example because the disk is full.
        """
        data = msgspec.json.encode({**name_to_json(key, "key"), **line, "run": self._run}) + b"\n"
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
            key = name_from_json(found.key, found.key_base64)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigurationError(
                f"{self._path}, line {number}, is not a result of an earlier run ({error}): "
                "give another --out"
            ) from error
        self._check_run(found, number)
        self.done.add(key)
        (self.failed.discard if found.error is None else self.failed.add)(key)

    def _check_run(self, found: _Line, number: int) -> None:
        """Refuse a line of another run; a line of release 0.1.0 names the model alone."""
        asked = ModelReference.parse(self._run.model).model
        if found.run == self._run or (found.run is None and found.model in (None, asked)):
            return
        was = f"--model {found.model}" if found.run is None else str(found.run)
        raise ConfigurationError(
            f"{self._path}, line {number}, is a result of {was}, and this run is {self._run}: give "
            "another --out, or the same model and options"
        )
