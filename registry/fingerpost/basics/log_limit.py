"""How often a line about what happens all the time is written."""

from __future__ import annotations

__all__ = ["LogLimit"]


class LogLimit:
    """Lets one line through every so many seconds, and counts the others."""

    def __init__(self, every_s: float = 5.0) -> None:
        self._every_s = every_s
        self._next_at = float("-inf")
        self._count = 0

    def count(self, now: float) -> int:
        """How many there were since the last line, this one included; 0 if it is too early."""
        self._count += 1
        if now < self._next_at:
            return 0
        self._next_at = now + self._every_s
        count, self._count = self._count, 0
        return count
