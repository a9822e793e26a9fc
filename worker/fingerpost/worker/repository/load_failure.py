"""What the log, the registry and an operator read when a version cannot be loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fingerpost.basics.disk_room import ENOUGH_BYTES, is_full, room_bytes
from fingerpost.errors import ConfigurationError, UntrustedModel

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LoadFailure", "too_little_room"]

# A copy that ended for want of room leaves less than a block, or what was removed since.
_NOTHING_BYTES: Final = 1_000_000
_REMEDY: Final = "make room, or name another folder for temporary files (TMPDIR)"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailure:
    """Why a version could not be loaded.

    Attributes:
        text: one line, with a remedy where the worker knows one.
        unforeseen: whether a trace of it helps: it is of a kind that nobody expected.
        passing: whether the same files may be loaded once there is room on a disk.
    """

    text: str
    unforeseen: bool = False
    passing: bool = False

    @classmethod
    def of(cls, error: Exception, models: Path | None) -> LoadFailure:
        """The failure for an error.

        Args:
            error: what loading raised.
            models: the folder of the models.
        """
        if is_full(error):
            text = str(error)
            if isinstance(error, OSError):
                place = error.filename or "a temporary file"
                text = f"{place} cannot be written: {error.strerror}"
            return cls(text=text if "TMPDIR" in text else f"{text}; {_REMEDY}", passing=True)
        known = isinstance(error, ConfigurationError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        if isinstance(error, UntrustedModel):
            text = f"{error.code}: {text}"  # for programs that watch it
        return cls(text=f"{text}{_if_full(models)}", unforeseen=not known)


def too_little_room(models: Path | None) -> str:
    """What is wrong with the disk of the models, before anybody copies another one; or nothing."""
    room = _room(models)
    if room is None or room >= ENOUGH_BYTES:
        return ""
    return (
        f"only {room / 1e6:,.0f} MB are free beside {models}: another version may not fit there; "
        "remove old versions, or use a larger disk"
    )


def _if_full(models: Path | None) -> str:
    room = _room(models)
    if room is None or room >= _NOTHING_BYTES:
        return ""
    return (
        f"; the disk of {models} is full, so perhaps only a part of the files is there: make room, "
        "and copy them again"
    )


def _room(models: Path | None) -> int | None:
    try:
        return None if models is None else room_bytes(models)
    except OSError:
        return None
