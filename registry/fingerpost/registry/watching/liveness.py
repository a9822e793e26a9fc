"""Ask a worker itself whether it is there: `GET /load`, which it answers in about a millisecond."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fingerpost.registry.load import LoadReport, WorkerState
from fingerpost.registry.watching.self_preservation import ProbeResult

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance

__all__ = ["Liveness"]

# Questions under way at once. A worker that hangs holds one for the deadline, so that 100 hanging
# ones are through in 2 s; more costs descriptors.
_CONCURRENT: Final = 32
# A load report has some 150 bytes.
_MAX_BODY_BYTES: Final = 64 * 1024


class Liveness:
    """Asks workers, each within `deadline_s` seconds and `_CONCURRENT` of them at once.

    Connections are not kept: a worker that is gone must be noticed, and questions are rare.
    Redirects, cookies and proxies from the environment play no part.
    """

    def __init__(self, *, deadline_s: float = 0.5) -> None:
        self._deadline_s = deadline_s
        self._gate = asyncio.Semaphore(_CONCURRENT)
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, instance: Instance) -> ProbeResult:
        """What the worker says of itself; never raises for what a peer does.

        READY: it says so, with the registered boot id (any, where none was registered). SILENT: no
        answer in time, a connection that broke or a status of 5xx, as a machine in trouble gives.
        GONE: nobody listens, another process has the port, it drains or failed, it is no worker.
        """
        async with self._gate:
            try:
                async with asyncio.timeout(self._deadline_s):
                    return await self._ask(instance)
            except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
                return _result_of(error)

    async def aclose(self) -> None:
        """Close the connections. A later `ask` opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, instance: Instance) -> ProbeResult:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        url = f"{instance.url}/load"
        async with self._session.get(url, allow_redirects=False) as response:
            if response.status != 200:
                return ProbeResult.SILENT if response.status >= 500 else ProbeResult.GONE
            body = b""
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > _MAX_BODY_BYTES:
                    return ProbeResult.GONE
        try:
            report = msgspec.json.decode(body, type=LoadReport)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return ProbeResult.GONE
        another = instance.boot_id not in (0, report.boot_id)
        return (
            ProbeResult.GONE
            if another or report.state is not WorkerState.READY
            else ProbeResult.READY
        )


def _result_of(error: Exception) -> ProbeResult:
    cause = getattr(error, "os_error", error)
    if isinstance(cause, ConnectionRefusedError) or isinstance(
        error, aiohttp.ClientResponseError | aiohttp.InvalidURL
    ):
        return ProbeResult.GONE
    return ProbeResult.SILENT
