"""Calls to Consul's HTTP API, with our deadlines, our token and our errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Final, Literal

import aiohttp
import msgspec
import yarl

from fingerpost.registry.errors import RegistryDenied, RegistryError, RegistryUnreachable
from fingerpost.registry.urls import parse_base_url

if TYPE_CHECKING:
    import ssl

__all__ = ["Answer", "ConsulHttp", "Pool", "deadline"]

# Watches hold their connections for as long as they wait, so that heartbeats need a pool of their
# own: in a shared pool of two, a third call was seen to wait behind two watches.
Pool = Literal["calls", "watches"]

_CALL_CONNECTIONS: Final = 8
# An entry is some 3 KB, so this is 20,000 instances of one service.
_MAX_BODY_BYTES: Final = 64 * 1024 * 1024


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Consul's answer with status 200, or 404 where the caller takes that for an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def index(self) -> int:
        """`X-Consul-Index`, at least 1. Raises `RegistryError` where it is no number."""
        value = self.headers.get("X-Consul-Index", "")
        if not (value.isascii() and value.isdigit() and len(value) <= 20):
            raise RegistryError(
                f"the registry answered with X-Consul-Index {value!r}: is it Consul?"
            )
        return max(1, int(value))

    @property
    def knows_leader(self) -> bool:
        """False while the servers have no leader, and their data may be as old as the outage."""
        return self.headers.get("X-Consul-KnownLeader") != "false"


@contextlib.asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Bound a call; raises `RegistryUnreachable` when the time is over."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise RegistryUnreachable(f"{what}: no answer within {seconds:g} s") from error


class ConsulHttp:
    """Two connection pools to one agent, made on first use in the running loop.

    Proxies, redirects and environment variables play no part. All failures are `RegistryError`s.
    """

    def __init__(self, base_url: str, *, token: str | None, tls: ssl.SSLContext | None) -> None:
        self.base_url = parse_base_url(base_url)
        self._headers = {"X-Consul-Token": token} if token else {}
        self._tls = tls
        self._sessions: dict[Pool, aiohttp.ClientSession] = {}

    async def call(
        self,
        method: Literal["GET", "PUT"],
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        data: str | bytes | None = None,
        pool: Pool = "calls",
        not_found_ok: bool = False,
    ) -> Answer:
        """One request. It has no deadline of its own: callers put theirs around it.

        `path` holds only names that passed the allow-list.

        Raises:
            RegistryUnreachable: no connection, or one that broke.
            RegistryDenied: status 401 or 403.
            RegistryError: any other status but 200 (and 404 with `not_found_ok`).
        """
        url = yarl.URL(self.base_url + path)
        try:
            async with self._session(pool).request(
                method, url, params=params, data=data, allow_redirects=False
            ) as response:
                body = await _read(response)
        except TimeoutError as error:
            raise RegistryUnreachable(f"{method} {url}: timed out") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RegistryUnreachable(
                f"the registry at {self.base_url} cannot be reached: "
                f"{error or type(error).__name__}; is it running there?"
            ) from error
        status = response.status
        if status == 200 or (status == 404 and not_found_ok):
            return Answer(status=status, headers=response.headers, body=body)
        text = body[:300].decode("utf-8", "replace").strip()
        if status in (401, 403):
            raise RegistryDenied(f"{method} {url}: HTTP {status}: {text}; check the token's policy")
        raise RegistryError(f"{method} {url}: HTTP {status}: {text}")

    def _session(self, pool: Pool) -> aiohttp.ClientSession:
        session = self._sessions.get(pool)
        if session is None:
            connector = aiohttp.TCPConnector(
                # The number of watches is bounded by the registry, that of calls by the pool.
                limit=_CALL_CONNECTIONS if pool == "calls" else 0,
                ssl=self._tls if self._tls is not None else True,
            )
            session = self._sessions[pool] = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                # Deadlines are the callers' own; aiohttp's default of 300 s would cut in.
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return session

    async def aclose(self) -> None:
        """Close all connections. A later call opens new ones."""
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _MAX_BODY_BYTES:
            raise RegistryError(f"{response.url}: an answer of over {_MAX_BODY_BYTES} bytes")
        pieces.append(piece)
    return b"".join(pieces)
