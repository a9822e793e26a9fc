"""Runs the embedded registry's HTTP checks against the workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from fingerpost.basics.supervision import count_unexpected
from fingerpost.registry.embedded.state.definitions import CheckDefinition, CheckReport
from fingerpost.registry.peers.session import PeerSession, connection_problem
from fingerpost.security.tls import ClientTls
from fingerpost.security.tls.problems import tls_problem

if TYPE_CHECKING:
    from fingerpost.security.tls import TlsConfig

__all__ = ["Checker"]

# Of the answer, the first 4 KB are shown; a connection that brings far more is cut.
_OUTPUT_BYTES: Final = 4096
_MAX_BYTES: Final = 1 << 20


class Checker:
    """Runs one task per HTTP check, and calls `report` with each result."""

    def __init__(
        self, report: Callable[[str, CheckReport], None], tls: TlsConfig | None = None
    ) -> None:
        self._report = report
        self._tls = ClientTls(tls)
        self._rng = random.Random()
        self._running: dict[str, tuple[CheckDefinition, asyncio.Task[None]]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        # A new connection for each check: a worker that is gone must be noticed. Unlike Consul, it
        # follows no redirect: what is registered would decide what is asked from this machine.
        self._session = PeerSession(max_bytes=_MAX_BYTES)

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
        await self._session.aclose()

    async def _run(self, check: CheckDefinition) -> None:
        # As Consul does: checks that were registered together do not run together.
        await asyncio.sleep(self._rng.uniform(0, check.interval_s))
        while True:
            try:
                self._report(check.id, await self._probe(check))
            except Exception as error:  # a check that ends is a worker that is never removed
                count_unexpected("checks", error)
            await asyncio.sleep(check.interval_s)

    def _options(self, check: CheckDefinition) -> dict[str, Any]:
        if not check.http.startswith("https:"):
            return {}
        tls = self._tls.for_any_worker()
        return {"tls": tls, "server_name": check.tls_server_name or None}

    async def _probe(self, check: CheckDefinition) -> CheckReport:
        try:
            async with (
                asyncio.timeout(check.timeout_s),
                self._session.request(check.method, check.http, **self._options(check)) as response,
            ):
                body = (await response.content.read(_OUTPUT_BYTES)).decode("utf-8", "replace")
        except TimeoutError:
            output = f"{check.method} {check.http}: no answer within {check.timeout_s:g} s"
            return CheckReport("critical", output)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            problem = tls_problem(error) or connection_problem(error)
            return CheckReport("critical", f"{check.method} {check.http}: {problem}")
        output = f"HTTP {check.method} {check.http}: {response.status} Output: {body}"
        if 200 <= response.status < 300:
            return CheckReport("passing", output)
        return CheckReport("warning" if response.status == 429 else "critical", output)
