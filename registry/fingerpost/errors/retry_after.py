"""How long a peer asks to be left alone, as far as it can be believed. Pure.

Whoever answers may be anybody's server. What is longer than an hour, or is not a time at all, is a
mistake more often than a wish, and ends no call: it counts as not said.
"""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

__all__ = ["MAX_RETRY_AFTER_S", "believed_retry_after", "read_retry_after"]

MAX_RETRY_AFTER_S: Final = 60.0
"""No peer is left alone for longer because it has said so."""
_BELIEVED_S: Final = 3600.0
_LETTERS: Final = 64


def believed_retry_after(seconds: float) -> float | None:
    """The seconds that a peer said, `MAX_RETRY_AFTER_S` at most; None where they are not believed.

    Not believed are negative numbers, NaN, and more than an hour.
    """
    return min(seconds, MAX_RETRY_AFTER_S) if 0 <= seconds <= _BELIEVED_S else None


def read_retry_after(value: str, now: float) -> float | None:
    """The seconds of a header `Retry-After` (RFC 9110, 10.2.3): a whole number, or a date.

    A date that has passed is 0 seconds. None where there is no time in it, or none that is
    believed.

    Args:
        value: as it came, whatever it is; empty where there is none.
        now: the time of the day, in seconds since 1970.
    """
    if not value or len(value) > _LETTERS or not value.isascii():
        return None
    if value.isdigit():
        return believed_retry_after(float(value))
    try:
        date = parsedate_to_datetime(value)
        until = (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return believed_retry_after(max(0.0, until - now))
