"""How an attempt ended, as a sign of the worker's health."""

from __future__ import annotations

import enum

__all__ = ["Outcome"]


class Outcome(enum.Enum):
    """How an attempt ended, as a sign of the worker's health."""

    ANSWERED = enum.auto()  # the worker works, even if it did not accept the image
    REFUSED = enum.auto()  # no connection could be opened
    FAILED = enum.auto()  # reset, timeout, a 5xx, or an answer that cannot be read
    STALE = enum.auto()  # it is not what its entry says: another process, or not that model
    OVERLOADED = enum.auto()  # more requests than it accepts now; not a failure
    DRAINING = enum.auto()  # it accepts no new requests, because it is about to leave
    ABANDONED = enum.auto()  # the caller gave up: no sign of anything
