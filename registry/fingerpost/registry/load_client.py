"""The client for `GET /load`, which a worker answers in about a millisecond.

An address in a registry may belong to any server, also to one that an attacker controls. So nothing
that it answers makes this client go elsewhere or use much memory or time: redirects are not
followed, cookies are neither kept nor sent, compressed bodies are refused, and size and time are
limited. Proxies and credentials from the environment are not used either.

The streaming client asks over its own connections, which it keeps for images, and reads the answers
by the same `read_load_answer`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

import aiohttp
from aiohttp import hdrs

from fingerpost.errors import BadAnswer, ConnectionRefused, Unreachable
from fingerpost.registry.load import MAX_LOAD_BYTES, read_load_answer

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
    """

    def __init__(self, *, timeout_s: float, max_concurrent: int, keep_alive_s: float = 0.0) -> None:
        self._timeout_s = timeout_s
        self._keep_alive_s = keep_alive_s
        self._limit = asyncio.Semaphore(max_concurrent)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. A later `get` opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def get(self, instance: Instance) -> LoadReport:
        """The worker's load report.

        Every failure is a retryable `PeerError`.

        Raises:
            ConnectionRefused: no process accepts connections at its address.
            Unreachable: no connection for another reason, one that broke, or no answer in time.
            BadAnswer: it answered something else than a load report.
            PeerError: a status of 500 or more; also the base of the others.
        """
        async with self._limit:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await self._get(instance)
            except TimeoutError as error:
                raise Unreachable(
                    f"{instance.address}/load: no answer within {self._timeout_s:g} s"
                ) from error
            except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
                raise BadAnswer(f"{instance.address}/load: {error}") from error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                cause = getattr(error, "os_error", error)
                refused = isinstance(cause, ConnectionRefusedError)
                raise (ConnectionRefused if refused else Unreachable)(
                    f"{instance.address}/load: {error or type(error).__name__}"
                ) from error

    async def _get(self, instance: Instance) -> LoadReport:
        async with self._connected().get(
            f"{instance.url}/load",
            allow_redirects=False,
            headers={hdrs.ACCEPT_ENCODING: "identity"},
        ) as response:
            body = b""
            if response.status == 200:
                async for piece in response.content.iter_any():
                    body += piece
                    if len(body) > MAX_LOAD_BYTES:
                        break  # leaving the block closes the connection
            encoding = ", ".join(response.headers.getall(hdrs.CONTENT_ENCODING, ()))
            return read_load_answer(response.status, encoding, body, instance.address)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = (
                aiohttp.TCPConnector(limit=0, keepalive_timeout=self._keep_alive_s)
                if self._keep_alive_s
                else aiohttp.TCPConnector(limit=0, force_close=True)
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._session
