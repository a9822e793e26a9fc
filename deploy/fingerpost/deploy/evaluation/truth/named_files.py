"""The images that a file of labels names: files of one folder, and of no other place."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["named_files"]


def named_files(path: Path, names: Iterable[str], folder: Path, *, what: str) -> dict[str, Path]:
    """The file of each name; the file that names them may come from a stranger.

    Args:
        path: of the file that has the names, for errors.
        names: relative to the folder, with `/` between folders.
        folder: of the images.
        what: how a name is called in that file.

    Raises:
        ConfigurationError: there is no folder, a name leads out of it, or a file is missing.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {str(folder)!r}: give that of the images")
    missing = []
    files = {}
    for each in names:
        name = PurePosixPath(each)
        if name.is_absolute() or ".." in name.parts or "\0" in each:
            raise ConfigurationError(
                f"{path}: {what} {each!r} leads out of {str(folder)!r}: names must be "
                "relative to the folder that --images names"
            )
        files[each] = folder / name
        if not files[each].is_file():
            missing.append(each)
    if missing:
        raise ConfigurationError(
            f"{path} names {len(missing):,} of {len(files):,} images that are not in "
            f"{str(folder)!r}, such as {missing[0]!r}: give the folder that they are in with "
            "--images, or remove them from the file"
        )
    return files
