"""Refuses models in archives that would unfold to far more than they are.

`.pt2`, `.pt`, `.keras` and `.npz` are zip archives, whose weights hardly compress (by 1.1, sparse
ones by 10): 2.9 MB that unfold to 6.2 GB are an attack or an accident, and end the worker. An
archive may unfold to 20 times its size, or to 256 MB if that is more. The sizes are those of its
directory; its readers, Python's zipfile and PyTorch's miniz, make room for so much and stop there,
which tests show.
"""

from __future__ import annotations

import stat
import zipfile
from typing import IO, TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_archive", "is_archive"]

MAX_RATIO: Final = 20
MIN_LIMIT_BYTES: Final = 256_000_000
MAX_ENTRIES: Final = 100_000
_SUFFIXES: Final = frozenset({".keras", ".npz", ".pt", ".pt2", ".pth", ".torchscript", ".zip"})
_NESTED: Final = tuple(_SUFFIXES)
# An exported program holds its weights as archives in the archive; those hold none.
_MAX_DEPTH: Final = 2


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its name."""
    return path.suffix in _SUFFIXES


def check_archive(path: Path) -> None:
    """Check that an archive unfolds to a sensible size; what is not a zip archive passes.

    Raises:
        ConfigurationError: it would not, or its directory cannot be read.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode) or not zipfile.is_zipfile(path):
            return
        limit = max(MIN_LIMIT_BYTES, MAX_RATIO * state.st_size)
        with path.open("rb") as file:
            size = _unfolded(file, limit, depth=1)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
        raise ConfigurationError(f"{path} is a damaged archive: {error}") from error
    if size > limit:
        raise ConfigurationError(
            f"{path} has {state.st_size:,} bytes and unfolds to {size:,} or more, over the limit "
            f"of {limit:,} ({MAX_RATIO} times its size): save the model without compression"
        )


def _unfolded(file: IO[bytes], limit: int, *, depth: int) -> int:
    """The bytes that an archive unfolds to; counting stops above `limit`."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise ValueError(f"it has over {MAX_ENTRIES:,} entries")
        size = sum(each.file_size for each in entries)
        if depth == _MAX_DEPTH:
            return size
        for each in entries:
            if size > limit:
                break
            if each.filename.endswith(_NESTED):
                # What is compressed too is read up to its declared size, which is within the limit.
                with archive.open(each) as inner:
                    if zipfile.is_zipfile(inner):
                        size += _unfolded(inner, limit - size, depth=depth + 1)
        return size
