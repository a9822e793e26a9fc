"""Version folders, written under another name and then renamed: a version is complete or absent."""

from __future__ import annotations

import contextlib
import errno
import secrets
import shutil
from typing import TYPE_CHECKING

from fingerpost.basics.disk_room import is_full
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_room", "next_version", "publish", "staging_folder", "writing"]


def next_version(out: Path) -> int:
    """The highest version in `out` plus one; 1 where there is none.

    Gaps are not filled: a number that was served once must not name another model.
    """
    return 1 + max(
        (
            int(entry.name)
            for entry in out.iterdir()
            if entry.name.isascii() and entry.name.isdigit()
        ),
        default=0,
    )


@contextlib.contextmanager
def staging_folder(out: Path, purpose: str = "training") -> Iterator[Path]:
    """A hidden folder in `out`, on the same disk, to write a version into; removed at the end.

    It is created at once, so that an `out` that cannot be written to is found before the training.
    `out` itself is removed again if it was created here and stayed empty.

    Raises:
        ConfigurationError: `out` cannot be written to.
    """
    folder = out / f".{purpose}-{secrets.token_hex(4)}"  # readers take only numbers for versions
    existed = out.exists()
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigurationError(
            f"out {str(out)!r} cannot be written to: {error.strerror or error}"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not existed:
            with contextlib.suppress(OSError):  # not empty: it holds the version
                out.rmdir()


def check_room(out: Path, needed_bytes: int) -> None:
    """Check before a training, not only after it, that the disk has room for its weights.

    Raises:
        ConfigurationError: it has not.
    """
    free = shutil.disk_usage(out).free
    if free < needed_bytes:
        raise ConfigurationError(
            f"out {str(out)!r} has {free / 1e6:,.1f} MB of free disk space, and the model needs "
            f"{needed_bytes / 1e6:,.1f} MB or more: make room, or give another out"
        )


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Translate a full disk, or another failure to write, inside `with`.

    Keras, TensorFlow and Matplotlib each raise errors of their own for it.

    Raises:
        ConfigurationError: something could not be written.
    """
    try:
        yield
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if not isinstance(error, OSError) and not is_full(error):
            raise
        raise ConfigurationError(
            f"out {str(out)!r} cannot be written to ({reason}): nothing was left there; make room, "
            "or give another out, and train again"
        ) from error


def publish(folder: Path, out: Path) -> Path:
    """Rename `folder` to the next free version in `out`, in one step, and return it."""
    while True:
        version = out / str(next_version(out))
        try:
            return folder.rename(version)
        except OSError as error:  # another run took the number in between
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
