"""One lookup at one proxy, for checks: nothing is watched, and no other proxy is asked instead."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fingerpost.client.resolver import proxy_url
from fingerpost.errors import PeerError, error_from_json
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.client.credential import Credential
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["Lookup", "look_up"]

_ANSWER_S: Final = 5.0
_MAX_BYTES: Final = 16 << 20


class _Worker(msgspec.Struct):
    address: str


class _Answer(msgspec.Struct):
    instances: list[_Worker]
    lease: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What a proxy answered.

    Attributes:
        addresses: the workers' `host:port`.
        lease: the right to send them images; empty where the proxy signs none.
    """

    addresses: frozenset[str]
    lease: str


async def look_up(
    proxy: str, service: str, tls: TlsConfig | None, credential: Credential | None
) -> Lookup:
    """Ask a proxy for the workers of a service.

    Args:
        proxy: its URL.
        service: the service's name.
        tls: certificates for the proxy.
        credential: what it is shown, if it asks.

    Raises:
        Unauthenticated: the proxy does not know the credential; `Forbidden`: it may not ask.
        FingerpostError: it has no answer, or none within 5 s.
    """
    url = proxy_url(proxy)
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            PeerSession(max_bytes=_MAX_BYTES, workers=False) as session,
            session.request(
                "GET",
                url.with_path(f"/v1/resolve/{service}"),
                headers={} if credential is None else {"Authorization": credential.header()},
                tls=ClientTls(tls).for_host() if url.scheme == "https" else None,
            ) as response,
        ):
            body = await session.read(response, proxy)
            status = response.status
    except TimeoutError as late:
        raise PeerError(f"{proxy} does not answer within {_ANSWER_S:g} s") from late
    except (aiohttp.ClientError, OSError, ValueError) as failed:
        raise peer_error(failed, proxy) from failed
    if status != 200:
        raise error_from_json(body, status=status, peer=proxy)
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except msgspec.DecodeError as failed:
        raise PeerError(f"{proxy} is not a proxy") from failed
    return Lookup(
        addresses=frozenset(each.address for each in answer.instances), lease=answer.lease
    )
