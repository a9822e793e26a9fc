"""Whether a worker that has not answered for long is still at work: it is asked for its load."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fingerpost.errors import FingerpostError
from fingerpost.registry import WorkerState

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.registry import LoadReport

__all__ = ["LivenessChecks"]

_WORKING = frozenset({WorkerState.READY, WorkerState.DRAINING})


class LivenessChecks:
    """Asks workers that are late for their load report, on another connection. Make it in a loop.

    A model may take a minute for an image, and a full queue takes as long as it takes: to end such
    an attempt computes the image again elsewhere, for nothing (300 images of 0.1 s for one worker
    were run 353 times, and 62 of them were lost). So `ClientConfig.response_timeout_s` ends only
    an attempt at a worker that says nothing at all. A worker answers `GET /load` in milliseconds,
    whatever its model does. The attempts there go on for as long again if the report is that of
    the process which has the image, if that process has requests in flight, and if it does not say
    that it has failed. Whatever else comes, or nothing, changes nothing: the attempts end in time.

    All attempts at a worker share one question. Rejected: interim answers (`102 Processing`) on
    the connection of the image, which many HTTP clients take for the answer itself.

    Args:
        config: of the client.
        ask: asks the worker at an address for its load report.

    Attributes:
        ahead_s: how many seconds before the end of `response_timeout_s` a worker is asked.
    """

    def __init__(self, config: ClientConfig, ask: Callable[[str], Awaitable[LoadReport]]) -> None:
        self._ask = ask
        self._timeout_s = config.probe_timeout_s
        self._late: dict[str, set[Attempt]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._now = asyncio.get_running_loop().time
        self.ahead_s = min(config.probe_timeout_s, config.response_timeout_s / 2)

    async def aclose(self) -> None:
        """End all questions."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, address: str, attempt: Attempt) -> None:
        """Ask the worker at `address`, for an attempt that waits there; does not wait itself."""
        late = self._late.get(address)
        if late is not None:
            late.add(attempt)
            return
        self._late[address] = {attempt}
        task = asyncio.create_task(self._check(address), name=f"liveness check of {address}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _check(self, address: str) -> None:
        report: LoadReport | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                report = await self._ask(address)
        except (TimeoutError, FingerpostError):
            pass  # it says nothing: the attempts end at their time
        finally:
            late = self._late.pop(address)
        if report is None or not report.rif or report.state not in _WORKING:
            return
        for attempt in late:
            if attempt.boot_id in (0, report.boot_id):
                attempt.clock.progressed(self._now())
