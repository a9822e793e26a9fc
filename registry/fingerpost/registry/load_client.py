"""The client for `GET /load`, which a worker answers in about a millisecond.

It asks as `PeerSession` does, and limits the time too.

The streaming client asks over its own connections, which it keeps for images, and reads the answers
by the same `read_load_answer`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import hdrs

from fingerpost.errors import BadAnswer, ConnectionRefused, Unreachable
from fingerpost.registry.instance import is_address
from fingerpost.registry.load import MAX_LOAD_BYTES, PROBE_TIME_HEADER, read_load_answer
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.load import LoadReport

__all__ = ["LoadClient"]


class LoadClient:
    """Asks workers for their load reports, over connections of its own.

    Connections are made on first use, in the running loop.

    Args:
        timeout_s: how long one question may take, in seconds, from the connection to the last byte.
        max_concurrent: most questions at once; further ones wait, and their time does not count
            meanwhile. A worker that hangs holds one of them for `timeout_s`.
        keep_alive_s: how long an idle connection is kept for the next question, in seconds; 0 opens
            a new one each time, which finds out whether the worker still accepts connections.
        tls: checks who answers; by default the authorities of the system.
    """

    def __init__(
        self,
        *,
        timeout_s: float,
        max_concurrent: int,
        keep_alive_s: float = 0.0,
        tls: ClientTls | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._tls = tls or ClientTls()
        self._limit = asyncio.Semaphore(max_concurrent)
        self._session = PeerSession(max_bytes=MAX_LOAD_BYTES, keep_alive_s=keep_alive_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A later `get` opens new ones."""
        await self._session.aclose()

    async def get(self, instance: Instance, prefix: str = "") -> LoadReport:
        """The worker's load report.

        Args:
            prefix: of the path, which says for which process the question is meant.

        Every failure is a retryable `PeerError`. A foreign worker that has none is not asked.

        Raises:
            ConnectionRefused: no process accepts connections at its address.
            Unreachable: no connection for another reason, one that broke, or no answer in time.
            BadAnswer: it answered something else than a load report.
            TlsFailed: it has no certificate that is accepted.
            PeerError: a status of 500 or more; also the base of the others.
        """
        if not instance.load_target:
            raise BadAnswer(f"{instance.address}: a foreign worker has no load reports")
        async with self._limit:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._get(instance, prefix)
            except TimeoutError as error:
                raise Unreachable(
                    f"{instance.address}/load: no answer within {self._timeout_s:g} s"
                ) from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise peer_error(error, f"{instance.address}/load") from error

    async def connect(self, instance: Instance) -> None:
        """Open a connection to a worker that answers no questions, and close it.

        A host name is not tried, because it may resolve to any address.

        Raises:
            ConnectionRefused: no process accepts connections at its address.
        """
        if not is_address(instance.host):
            return
        async with self._limit:
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(self._timeout_s):
                    try:
                        _, writer = await asyncio.open_connection(
                            instance.host, instance.ports["http"]
                        )
                    except ConnectionRefusedError as error:
                        raise ConnectionRefused(f"{instance.address}: {error}") from error
                    writer.close()
                    await writer.wait_closed()

    async def _get(self, instance: Instance, prefix: str) -> LoadReport:
        peer = instance.address
        if instance.foreign:
            url = f"{instance.load_target}/load"
            tls = self._tls.for_host() if url.startswith("https:") else None
        else:
            url = f"{instance.url}{prefix}/load"
            tls = self._tls.for_worker(instance.service, speaks_tls=instance.speaks_tls, peer=peer)
        headers = {PROBE_TIME_HEADER: f"{time.time():.3f}"}
        async with self._session.request("GET", url, headers=headers, tls=tls) as response:
            body = b""
            if response.status == 200:
                body = await self._session.read(response, f"{peer}/load")
            encoding = ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ()))
            return read_load_answer(response.status, encoding, body, peer)
