"""One thing that a check found, and what to do about it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN_CREDENTIAL", "Finding", "Level", "error", "note", "ok", "warning"]

KNOWN_CREDENTIAL: Final = "show it a key or token that it knows: --token-file"
"""The remedy where a proxy asks who calls."""


class Level(enum.IntEnum):
    """How bad it is; a higher number is worse."""

    OK = 0
    NOTE = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check found.

    Attributes:
        check: the check's name, such as `gpu 0 memory`. Scripts may rely on it.
        level: `OK`; `NOTE`, worth knowing; `WARNING`, works, but slower or less safely; `ERROR`, a
            worker does not serve here, or nobody reaches it.
        message: what was found, with its value.
        remedy: what to do; warnings and errors have one.
    """

    check: str
    level: Level
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.level >= Level.WARNING and not self.remedy:
            raise ValueError(f"{self.check}: a finding of this level needs a remedy")


def ok(check: str, message: str) -> Finding:
    """Nothing is wrong."""
    return Finding(check=check, level=Level.OK, message=message)


def note(check: str, message: str, remedy: str = "") -> Finding:
    """Worth knowing."""
    return Finding(check=check, level=Level.NOTE, message=message, remedy=remedy)


def warning(check: str, message: str, remedy: str) -> Finding:
    """It works, but slower or less safely."""
    return Finding(check=check, level=Level.WARNING, message=message, remedy=remedy)


def error(check: str, message: str, remedy: str) -> Finding:
    """A worker does not serve here."""
    return Finding(check=check, level=Level.ERROR, message=message, remedy=remedy)
