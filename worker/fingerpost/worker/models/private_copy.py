"""A copy of a model's files that nobody but the worker's own user can change."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Final

from fingerpost.errors import ConfigurationError

__all__ = ["PrivateCopy"]

_PREFIX: Final = "fingerpost-copy-"


class PrivateCopy:
    """A folder of mode 0700 in the system's folder for temporary files (`TMPDIR`).

    It is removed by `remove`, when nothing refers to this object any more, and when the process
    ends. A killed process leaves it behind, and the next copy there removes it: else a worker that
    is killed again and again fills the disk. The one who uses a copy holds a lock on its folder,
    which the system takes from a process that ends (flock(2)).

    Attributes:
        folder: the folder.

    Raises:
        ConfigurationError: there is no folder for temporary files, or no room in it.
    """

    def __init__(self) -> None:
        try:
            self.folder, lock = _made()
        except OSError as error:
            raise ConfigurationError(
                f"no folder for a model's private copy can be made: {error.strerror or error}; "
                "TMPDIR names a folder that the worker may write to, with room for the model"
            ) from error
        self._remove = weakref.finalize(self, _remove, self.folder, lock)
        _remove_left_behind(self.folder)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        self._remove()


def _made() -> tuple[Path, int]:
    """A new folder, and a descriptor that locks it until it is closed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return folder, _locked(folder, needed=False)
        # Another process has taken it for one that was left behind, and removes it.


def _remove(folder: Path, lock: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)


def _remove_left_behind(own: Path) -> None:
    """Remove the copies of this user's processes that ended without removing them."""
    for folder in own.parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # in use, or just removed
            if folder != own and folder.lstat().st_uid == os.geteuid():
                _remove(folder, _locked(folder, needed=True))


def _locked(folder: Path, *, needed: bool) -> int:
    """A descriptor that locks a folder.

    Args:
        folder: the folder.
        needed: whether a file system that has no locks, such as some of networks, is an error.

    Raises:
        BlockingIOError: another process has it.
        FileNotFoundError: it was removed meanwhile.
        OSError: of another kind, see `needed`.
    """
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            if needed:
                raise
        folder.lstat()
    except BaseException:
        os.close(lock)
        raise
    return lock
