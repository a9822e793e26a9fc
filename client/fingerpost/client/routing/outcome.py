"""How an attempt ended."""

from __future__ import annotations

import enum

__all__ = ["Outcome"]


class Outcome(enum.Enum):
    """How an attempt ended, as far as it says something about the worker."""

    ANSWERED = enum.auto()  # it works, even where it refused the image
    REFUSED = enum.auto()  # no connection could be made
    FAILED = enum.auto()  # reset, silent for too long, a 5xx or a senseless answer
    OVERLOADED = enum.auto()  # hot, not failed
    DRAINING = enum.auto()
    ABANDONED = enum.auto()  # the caller gave up: nothing is known
