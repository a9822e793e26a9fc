"""Models without a worker whose first one is waited for, at proxies that hold lookups for it.

A watch says nothing of whether images wait: idle clients have watches too. So while images wait, a
lookup of its own is held at a proxy, and that is what an autoscaler starts a worker for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["StartRequests"]

_MAX_HOLD_S: Final = 600.0


class StartRequests:
    """Holds one lookup for each model without a worker that images wait for.

    Args:
        held: sends a lookup that is held for so many seconds, or until there is a worker.
    """

    def __init__(self, held: Callable[[str, float], Awaitable[None]]) -> None:
        self._held = held
        self._hold_s: dict[str, float] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def note(self, service: str, header: str) -> None:
        """Remember what a proxy said of a model without a worker: its `HOLD_HEADER`."""
        digits = header.isascii() and header.isdigit() and len(header) < 10
        self._hold_s[service] = min(float(header), _MAX_HOLD_S) if digits else 0.0

    def request(self, service: str) -> float:
        """Have a lookup held, unless one is; returns for how many seconds, 0 for not at all."""
        hold_s = self._hold_s.get(service, 0.0)
        if hold_s and service not in self._tasks:
            task = asyncio.create_task(self._run(service, hold_s), name=f"start of {service}")
            self._tasks[service] = task
        return hold_s

    async def _run(self, service: str, hold_s: float) -> None:
        try:
            await self._held(service, hold_s)
        finally:
            self._tasks.pop(service, None)

    async def aclose(self) -> None:
        """End them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
