"""How many refusals are written: a flood of wrong keys must not fill the disk; pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

__all__ = ["RefusalLimit"]

_PER_SOURCE: Final = 5
_IN_ALL: Final = 100
_WINDOW_S: Final = 10.0
_MAX_SOURCES: Final = 1000


class RefusalLimit:
    """Lets 5 refusals of each source and 100 in all through in 10 s, and counts the others.

    A source is an address, a /64 of IPv6, or a caller's name. So a flood from one hides nobody
    else's refusals, and one from everywhere writes at most 100 lines in 10 s, which is 20 MB a day.
    """

    def __init__(self) -> None:
        self._sources: OrderedDict[str, int] = OrderedDict()
        self._window_ends_at = float("-inf")
        self._admitted = 0
        self._left_out = 0

    def admit(self, source: str, now: float) -> bool:
        """Whether a refusal is written; `now` in seconds of any clock."""
        if now >= self._window_ends_at:
            self._window_ends_at = now + _WINDOW_S
            self._sources.clear()
            self._admitted = 0
        count = self._sources.get(source, 0)
        if count >= _PER_SOURCE or self._admitted >= _IN_ALL:
            self._left_out += 1
            return False
        self._sources[source] = count + 1
        if len(self._sources) > _MAX_SOURCES:
            self._sources.popitem(last=False)
        self._admitted += 1
        return True

    def take_left_out(self, now: float) -> int:
        """How many were not written since this was asked last; 0 while the window is open."""
        if not self._left_out or now < self._window_ends_at:
            return 0
        count, self._left_out = self._left_out, 0
        return count

    def take_rest(self) -> int:
        """The same at the end of the process."""
        count, self._left_out = self._left_out, 0
        return count
