"""How much room a disk has, for those who write to it, and for those who read what others wrote."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ENOUGH_BYTES", "is_full", "room_bytes"]

ENOUGH_BYTES: Final = 100_000_000
"""With less, a disk of models counts as full: a model of images has some 100 MB."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def room_bytes(folder: Path) -> int | None:
    """The bytes that may still be written to the disk of a folder.

    None where nobody ever writes: an image (SquashFS, EROFS, ISO 9660) always counts as full. A
    read-only mount of a disk that others write to has its bytes.

    Raises:
        OSError: the folder cannot be looked at.
    """
    state = os.statvfs(folder)
    if state.f_flag & os.ST_RDONLY and not state.f_bavail and not state.f_ffree:
        return None
    return state.f_bavail * state.f_frsize


def is_full(error: BaseException) -> bool:
    """Whether an error says that a disk, or a user's share of it, is full.

    Frameworks raise errors of their own, with the system's text in them.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(os.strerror(number) in str(error) for number in _FULL)
