"""Services that a registry no longer has, and how long ago they were last seen. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["VanishedServices"]


class VanishedServices:
    """Says which services to forget.

    Args:
        forget_after_s: how long a service must have been vanished without a break, in seconds.
    """

    def __init__(self, forget_after_s: float) -> None:
        self._forget_after_s = forget_after_s
        self._since: dict[str, float] = {}

    def update(
        self, vanished: Collection[str], *, at_once: Collection[str], now: float
    ) -> list[str]:
        """The services to forget, the longest vanished first.

        Args:
            vanished: all services that are vanished now.
            at_once: those among them that need no time.
            now: the time, in seconds of a monotonic clock.
        """
        before = self._since
        since = {name: before.get(name, now) for name in vanished}
        self._since = dict(sorted(since.items(), key=lambda each: each[1]))
        return [
            name
            for name, at in self._since.items()
            if name in at_once or now - at >= self._forget_after_s
        ]

    def oldest(self) -> str | None:
        """The service that has been vanished for longest, or None."""
        return next(iter(self._since), None)

    def discard(self, service: str) -> None:
        """Drop a service that was forgotten."""
        self._since.pop(service, None)
