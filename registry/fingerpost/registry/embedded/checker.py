"""Runs the embedded registry's HTTP checks against the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

import aiohttp

from fingerpost.registry.embedded.state.definitions import CheckDefinition, CheckReport

__all__ = ["Checker"]

_OUTPUT_BYTES = 4096


class Checker:
    """Runs one task per HTTP check, and calls `report` with each result."""

    def __init__(self, report: Callable[[str, CheckReport], None]) -> None:
        self._report = report
        self._rng = random.Random()
        self._running: dict[str, tuple[CheckDefinition, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def follow(self, wanted: Mapping[str, CheckDefinition]) -> None:
        """Run exactly the checks `wanted` from now on; needs a running loop."""
        for check_id, (definition, task) in list(self._running.items()):
            if wanted.get(check_id) != definition:
                del self._running[check_id]
                self._ending.add(task)
                task.add_done_callback(self._ending.discard)
                task.cancel()
        for check_id, definition in wanted.items():
            if check_id not in self._running:
                task = asyncio.create_task(self._run(definition), name=f"check {check_id}")
                self._running[check_id] = (definition, task)

    async def aclose(self) -> None:
        """End all checks."""
        self.follow({})
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _run(self, check: CheckDefinition) -> None:
        # As Consul does: checks that were registered together do not run together.
        await asyncio.sleep(self._rng.uniform(0, check.interval_s))
        while True:
            self._report(check.id, await self._probe(check))
            await asyncio.sleep(check.interval_s)

    async def _probe(self, check: CheckDefinition) -> CheckReport:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A new connection for each check: a worker that is gone must be noticed.
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        try:
            async with (
                asyncio.timeout(check.timeout_s),
                self._session.request(check.method, check.http) as response,
            ):
                body = (await response.content.read(_OUTPUT_BYTES)).decode("utf-8", "replace")
        except TimeoutError:
            output = f"{check.method} {check.http}: no answer within {check.timeout_s:g} s"
            return CheckReport("critical", output)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return CheckReport("critical", f"{check.method} {check.http}: {error}")
        output = f"HTTP {check.method} {check.http}: {response.status} Output: {body}"
        if 200 <= response.status < 300:
            return CheckReport("passing", output)
        return CheckReport("warning" if response.status == 429 else "critical", output)
