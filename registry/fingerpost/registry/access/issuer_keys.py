"""The public keys of token issuers: fetched, kept, and fetched again.

Keys are fetched every 5 minutes, and at once when a token names a key that is not known, but then
at most every 10 s, so that made-up key ids cannot make us flood an issuer. While an issuer does not
answer, its last good keys stay in use: an outage of the login service does not stop images.

Only `https` is asked (the policy checks that), redirects are not followed, no cookie is kept, and
an answer is limited in bytes and time, see `PeerSession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fingerpost.basics.config_file import read_config
from fingerpost.errors import BadAnswer, ConfigurationError, FingerpostError, Unreachable
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.callers.tokens import MAX_JWKS_BYTES, JsonWebKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from fingerpost.security.callers.schema import IssuerTable

__all__ = ["IssuerKeys"]

logger = logging.getLogger(__name__)

_REFRESH_S: Final = 300.0
_RETRY_S: Final = 10.0
_TIMEOUT_S: Final = 5.0
_DISCOVERY: Final = "/.well-known/openid-configuration"


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class IssuerKeys:
    """The keys of all issuers of a policy. Make it inside a running event loop.

    Args:
        changed: called when the keys of an issuer are others than before.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._issuers: dict[str, IssuerTable] = {}
        self._keys: dict[str, tuple[bytes, JsonWebKeys]] = {}
        self._due_at: dict[str, float] = {}
        self._fetches: dict[str, asyncio.Task[None]] = {}
        self._session = PeerSession(max_bytes=MAX_JWKS_BYTES, workers=False)
        self.problems: dict[str, str] = {}

    def follow(self, issuers: Mapping[str, IssuerTable]) -> None:
        """Keep the keys of these issuers, and forget those of others."""
        for name, table in self._issuers.items():
            if issuers.get(name) != table:
                for known in (self._keys, self._due_at, self.problems):
                    known.pop(name, None)
                if (fetch := self._fetches.pop(name, None)) is not None:
                    fetch.cancel()
        self._issuers = dict(issuers)

    def get(self, issuer: str) -> JsonWebKeys | None:
        """The last good keys of an issuer."""
        known = self._keys.get(issuer)
        return None if known is None else known[1]

    def refresh_due(self) -> None:
        """Begin to fetch the keys that are old; returns at once."""
        now = asyncio.get_running_loop().time()
        for name in self._issuers:
            if now >= self._due_at.get(name, 0.0) and name not in self._fetches:
                self._begin(name)

    async def fetch_again(self, issuer: str) -> bool:
        """Fetch the keys of an issuer now, unless that was done a moment ago; whether it was."""
        fetch = self._fetches.get(issuer)
        if fetch is None:
            last_at = self._due_at.get(issuer, 0.0) - (
                _RETRY_S if issuer in self.problems else _REFRESH_S
            )
            if asyncio.get_running_loop().time() < last_at + _RETRY_S:
                return False
            fetch = self._begin(issuer)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(fetch)
        return True

    async def aclose(self) -> None:
        """End what is being fetched."""
        fetches = list(self._fetches.values())
        for each in fetches:
            each.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)
        await self._session.aclose()

    def _begin(self, issuer: str) -> asyncio.Task[None]:
        fetch = asyncio.create_task(self._fetch(issuer), name=f"keys of {issuer}")
        self._fetches[issuer] = fetch
        fetch.add_done_callback(lambda done: self._ended(issuer, done))
        return fetch

    def _ended(self, issuer: str, fetch: asyncio.Task[None]) -> None:
        if self._fetches.get(issuer) is fetch:
            del self._fetches[issuer]

    async def _fetch(self, issuer: str) -> None:
        table = self._issuers[issuer]
        now = asyncio.get_running_loop().time
        try:
            body = await self._read(table)
            if body != self._keys.get(issuer, (None,))[0]:
                self._keys[issuer] = body, JsonWebKeys(body, f"the JWKS of {issuer}")
                self._changed()
                logger.info("the keys of %s were read: %d", issuer, len(self._keys[issuer][1]))
        except (FingerpostError, OSError) as error:
            self._due_at[issuer] = now() + _RETRY_S
            kept = "its last keys stay in use" if issuer in self._keys else "its tokens are refused"
            if issuer not in self.problems:
                logger.error("the keys of %s cannot be read: %s; %s", issuer, error, kept)  # noqa: TRY400
            self.problems[issuer] = str(error)
        else:
            self._due_at[issuer] = now() + _REFRESH_S
            self.problems.pop(issuer, None)

    async def _read(self, table: IssuerTable) -> bytes:
        if table.jwks_file is not None:
            return read_config(Path(table.jwks_file), most=MAX_JWKS_BYTES)
        tls: ssl.SSLContext | bool = True
        if table.ca_file is not None:
            try:
                tls = ssl.create_default_context(cafile=table.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise ConfigurationError(
                    f"ca_file {table.ca_file} cannot be used: {error}"
                ) from error
        url = table.jwks_url
        if url is None:
            url = await self._discovered(table, tls=tls)
        return await self._get(url, table, tls=tls)

    async def _discovered(self, table: IssuerTable, *, tls: ssl.SSLContext | bool) -> str:
        """The URL of the keys, as the issuer's discovery document says."""
        where = table.issuer.rstrip("/") + _DISCOVERY
        body = await self._get(where, table, tls=tls)
        try:
            found = msgspec.json.decode(body, type=_Discovery)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BadAnswer(f"{where} is not a discovery document: {error}") from error
        if found.issuer != table.issuer:
            raise BadAnswer(f"{where} is of issuer {found.issuer[:200]!r}: give that one")
        secure = found.jwks_uri.startswith("https://")
        if not secure and not where.startswith("http://"):
            raise BadAnswer(f"{where} names keys at {found.jwks_uri[:200]!r}, which is not https")
        return found.jwks_uri

    async def _get(self, url: str, table: IssuerTable, *, tls: ssl.SSLContext | bool) -> bytes:
        headers = {}
        if table.token_file is not None:
            token = read_config(Path(table.token_file)).decode("ascii", "replace").strip()
            if not token.isascii() or not token.isprintable():
                raise ConfigurationError(f"token_file {table.token_file} does not hold a token")
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with (
                asyncio.timeout(_TIMEOUT_S),
                self._session.request("GET", url, headers=headers, tls=tls) as response,
            ):
                if response.status != 200:
                    raise BadAnswer(f"{url} answered HTTP {response.status}")
                return await self._session.read(response, url)
        except TimeoutError as error:
            raise Unreachable(f"{url}: no answer within {_TIMEOUT_S:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise peer_error(error, url) from error
