"""The names of a model's classes, as its labels file has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.basics.config_file import read_text
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LABEL_FILES", "labels_files", "labels_in", "read_labels"]

LABEL_FILES: Final = ("labels.txt", "output_labels.txt")
"""The names that are looked for where `model.toml` has none."""

# The largest sets of classes (ImageNet's 21,841, OpenImages' 19,995) have some 500 KB of names.
_MAX_BYTES: Final = 16_000_000


def labels_files(folder: Path, named: str | None) -> tuple[Path, ...]:
    """Where a model's labels are read from, the first that exists; `named` is in `model.toml`."""
    return tuple(folder / name for name in ((named,) if named else LABEL_FILES))


def labels_in(folder: Path, named: str | None) -> tuple[str, ...]:
    """The labels in a model's folder; empty where there is no labels file and none is named.

    Raises:
        ConfigurationError: see `read_labels`.
    """
    for path in labels_files(folder, named):
        if named or path.is_file():
            return read_labels(path)
    return ()


def read_labels(path: Path) -> tuple[str, ...]:
    """Read a labels file: one label per line, UTF-8; blank lines at the end are ignored.

    Raises:
        ConfigurationError: the file is missing, unreadable or empty, or has a blank line among the
            labels.
    """
    try:
        lines = read_text(path, most=_MAX_BYTES).rstrip().splitlines()
    except FileNotFoundError as error:
        raise ConfigurationError(f"no labels file at {path}") from error
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        raise ConfigurationError(f"labels file {path} must have one label on every line")
    return labels
