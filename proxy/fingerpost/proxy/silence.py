"""Ends a relayed request whose worker neither answers nor says that it is at work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from fingerpost.errors import PeerError, Unreachable
from fingerpost.registry import WorkerState
from fingerpost.registry.load_client import LoadClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fingerpost.proxy.relayed_body import RelayedBody
    from fingerpost.registry import Instance
    from fingerpost.security.tls import ClientTls

__all__ = ["SilenceChecks"]

_WORKING: Final = frozenset({WorkerState.READY, WorkerState.DRAINING})
_TIMEOUT_S: Final = 1.0
_CONCURRENT: Final = 16


class SilenceChecks:
    """Asks workers that are late for their load, as `LivenessChecks` of a client does.

    A model may take a minute for an image, and a full queue takes as long as it takes. So a worker
    that is late is asked for its load report, and waited for as long as it has requests in flight
    and has not failed.

    Args:
        response_timeout_s: see `ProxyConfig`.
        tls: checks the workers.
    """

    def __init__(self, response_timeout_s: float, tls: ClientTls | None = None) -> None:
        self._timeout_s = response_timeout_s
        self._client = LoadClient(timeout_s=_TIMEOUT_S, max_concurrent=_CONCURRENT, tls=tls)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def watch(self, worker: Instance, body: RelayedBody) -> AsyncIterator[None]:
        """Wait for the worker's answer inside the `async with` block.

        Raises:
            Unreachable: it was late, and did not say that it works.
        """
        loop = asyncio.get_running_loop()
        check: asyncio.Task[None] | None = None

        def late() -> None:
            nonlocal check
            check = asyncio.create_task(self._check(worker, body, scope), name="silence check")

        timer = loop.call_later(self._timeout_s, late)  # a task for each request would cost more
        scope = asyncio.timeout(None)
        try:
            async with scope:
                yield
        except TimeoutError:
            if not scope.expired():
                raise
            raise Unreachable(
                f"worker {worker.address}: no answer for {self._timeout_s:g} s, and it does not "
                "say that it is at work: send the image again"
            ) from None
        finally:
            timer.cancel()
            if check is not None:
                check.cancel()
                await asyncio.gather(check, return_exceptions=True)

    async def _check(self, worker: Instance, body: RelayedBody, scope: asyncio.Timeout) -> None:
        now = asyncio.get_running_loop().time
        while True:
            quiet_s = now() - body.moved_at
            if quiet_s >= self._timeout_s:
                if not await self._works(worker):
                    scope.reschedule(now())
                    return
                quiet_s = 0.0
            await asyncio.sleep(self._timeout_s - quiet_s)

    async def _works(self, worker: Instance) -> bool:
        try:
            report = await self._client.get(worker)
        except PeerError:
            return False
        if worker.boot_id not in (0, report.boot_id):
            return False
        return report.rif > 0 and report.state in _WORKING
