"""The images among the files of folders and patterns.

A file is taken as an image if its suffix says so, whatever it contains: a damaged photo must be
reported, not skipped. A file with another suffix, or none, is taken if it begins as an image does.
Everything else is skipped and counted: notes, `Thumbs.db`, results of an earlier run. Hidden files
and folders (`.git`, `._photo.jpg`) are skipped without being read.
"""

from __future__ import annotations

import glob
import mimetypes
import os
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.file_names import printable_name, stdin_names
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["ImageFiles", "missing_source"]

# Python's own table, so that it is the same on every machine, and what that lacks in Python 3.11.
_TYPES: Final = mimetypes.MimeTypes()
_MORE_SUFFIXES: Final = frozenset({".avif", ".heic", ".heif", ".jfif", ".webp"})

# The first bytes of the formats that may be sent. An ISO file's brand follows its size and `ftyp`.
_BEGINNINGS: Final = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF8",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"II+\x00",
    b"MM\x00+",
)
_BRANDS: Final = frozenset({b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1"})


def missing_source(sources: Iterable[str]) -> str | None:
    """The first path of a command line with nothing at it; `-` and patterns are not looked at."""
    for source in sources:
        if source != "-" and not glob.has_magic(source) and not os.path.lexists(source):
            return source
    return None


class ImageFiles:
    """The names of the images that a command line names; iterate over it once.

    Args:
        sources: folders, which are searched with all their subfolders; patterns such as
            `photos/**/*.jpg`; files; `-` for names on standard input. A file that is named itself
            is always taken, also if it does not exist: see `missing_source`.

    Attributes:
        hidden: how many hidden files and folders were skipped until now.
        others: how many files that are not images were skipped until now.
        example: one of those files.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._sources = sources
        self.hidden = 0
        self.others = 0
        self.example = ""

    def names(self) -> Iterator[str]:
        """The names, those of a folder or pattern sorted. A name is given once.

        Raises:
            ConfigurationError: there is no image; by this call.
        """
        names: Iterator[str] = chain.from_iterable(map(self._of, self._sources))
        if len(self._sources) > 1:
            names = _unique(names)
        first = next(names, None)
        if first is None and "-" not in self._sources:
            raise ConfigurationError(self._nothing())
        return names if first is None else chain([first], names)

    def skipped(self) -> str:
        """What was skipped, as text; empty if nothing was."""
        parts = []
        if self.others:
            files = "file that is not an image" if self.others == 1 else "files that are not images"
            parts.append(f"{self.others:,} {files} ({self.example})")
        if self.hidden:
            parts.append(f"{self.hidden:,} hidden")
        return " and ".join(parts)

    def _of(self, source: str) -> Iterator[str]:
        path = Path(source)
        if source == "-":
            yield from stdin_names()
        elif path.is_dir():
            yield from self._images(self._files(path))
        elif glob.has_magic(source) and not path.exists():
            yield from self._images(
                path
                for path in map(Path, sorted(glob.glob(source, recursive=True)))  # noqa: PTH207 - a pattern may be absolute
                if path.is_file()
            )
        else:
            yield source

    def _files(self, folder: Path) -> Iterator[Path]:
        """Files in the folder and its subfolders, in sorted order."""
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise ConfigurationError(
                f"{printable_name(str(folder))} cannot be read: {error.strerror}"
            ) from error
        for path in paths:
            if path.name.startswith("."):
                self.hidden += 1
            elif path.is_dir():
                # As `Path.rglob`, so that a link to a folder above makes no endless search.
                yield from () if path.is_symlink() else self._files(path)
            elif path.is_file():
                yield path

    def _images(self, paths: Iterable[Path]) -> Iterator[str]:
        for path in paths:
            if _is_image(path):
                yield str(path)
            else:
                self.others += 1
                self.example = self.example or printable_name(path.name)

    def _nothing(self) -> str:
        named = ", ".join(repr(each) for each in self._sources)
        if skipped := self.skipped():
            return f"there is no image at {named}, only {skipped}"
        return f"there is no file at {named}: give a folder, a file, or a pattern"


def _unique(names: Iterable[str]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name not in seen:
            seen.add(name)
            yield name


def _is_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in _MORE_SUFFIXES or _TYPES.types_map[True].get(suffix, "").startswith("image/"):
        return True
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return True  # the image's own error says why
    return (
        start.startswith(_BEGINNINGS)
        or (start[:4] == b"RIFF" and start[8:] == b"WEBP")
        or (start[4:8] == b"ftyp" and start[8:] in _BRANDS)
    )
