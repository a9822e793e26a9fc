"""How long an event loop is held at a time, in processor time of its thread.

The time of the clock would measure the neighbours on a busy machine, too.
"""

from __future__ import annotations

import asyncio
import time

__all__ = ["LoopPauses"]


class LoopPauses:
    """Measures the loop that it is made in until `close`."""

    def __init__(self) -> None:
        self._seconds: list[float] = []
        self._task = asyncio.create_task(self._measure())

    def take(self) -> list[float]:
        """The seconds of processor time between two wake-ups since the last call, ascending."""
        seconds, self._seconds = self._seconds, []
        return sorted(seconds)

    async def close(self) -> None:
        """Stop measuring."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self._seconds.append(now - before)
            before = now
