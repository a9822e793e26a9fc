"""Whether the workers of this machine serve: each answers an image, and each proxy names them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from fingerpost.client.resolver import proxy_url
from fingerpost.deploy.doctor.finding import error, ok
from fingerpost.deploy.join.first_image import send_first_images
from fingerpost.errors import FingerpostError, PeerError, error_from_json
from fingerpost.registry.peer_session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.finding import Finding
    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["check_serving"]

_ANSWER_S: Final = 5.0
_PAUSE_S: Final = 0.3
_MAX_BYTES: Final = 16 << 20


class _Worker(msgspec.Struct):
    address: str


class _Resolved(msgspec.Struct):
    instances: list[_Worker]


async def check_serving(
    *,
    registry: str,
    registry_config: RegistryConfig,
    proxies: Sequence[str],
    tls: TlsConfig | None,
    credential: Credential | None,
    within_s: float,
) -> list[Finding]:
    """Wait until the workers of this machine serve, at most `within_s` seconds.

    Args:
        registry, registry_config, proxies, tls, credential: see `ClusterChecks`.
        within_s: for the registry and all proxies together.

    Returns:
        A finding for each worker and model, and for each proxy.
    """
    end = time.monotonic() + within_s
    while True:
        try:
            left_s = max(0.0, end - time.monotonic())
            answers = await send_first_images(registry, registry_config, tls, left_s)
            break
        except FingerpostError as failed:
            if time.monotonic() > end:
                remedy = "look at its log: journalctl -u 'fingerpost-worker*'"
                return [error("worker", str(failed), remedy)]
        await asyncio.sleep(_PAUSE_S)
    found = [ok(f"worker {worker}", answer) for worker, answer in answers.items()]
    wanted = [tuple(worker.rsplit(" ", 1)) for worker in answers]
    headers = {} if credential is None else {"Authorization": credential.header()}
    async with PeerSession(max_bytes=_MAX_BYTES, workers=False) as session:
        access = (headers, ClientTls(tls))
        return [*found, *[await _named(session, each, wanted, access, end) for each in proxies]]


async def _named(
    session: PeerSession,
    proxy: str,
    wanted: Sequence[tuple[str, ...]],
    access: tuple[dict[str, str], ClientTls],
    end: float,
) -> Finding:
    """Whether a proxy names all of these pairs of an address and a model."""
    began = time.monotonic()
    while True:
        try:
            missing = [
                f"{model} at {address}"
                for address, model in wanted
                if address not in await _resolve(session, proxy, model, access)
            ]
            problem = f"it does not name {', '.join(missing)}" if missing else ""
        except FingerpostError as failed:
            problem = str(failed)
        if not problem:
            took_s = time.monotonic() - began
            return ok(
                f"proxy {proxy}", f"it names the workers of this machine after {took_s:.1f} s"
            )
        if time.monotonic() > end:
            remedy = "look at its log, and whether it uses the same registry"
            return error(f"proxy {proxy}", problem, remedy)
        await asyncio.sleep(_PAUSE_S)


async def _resolve(
    session: PeerSession, proxy: str, model: str, access: tuple[dict[str, str], ClientTls]
) -> set[str]:
    """The addresses of a model's workers that a proxy names."""
    headers, tls = access
    url = proxy_url(proxy)
    context = tls.for_host() if url.scheme == "https" else None
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            session.request(
                "GET", url.with_path(f"/v1/resolve/{model}"), headers=headers, tls=context
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
        workers = msgspec.json.decode(body, type=_Resolved).instances
    except msgspec.DecodeError as failed:
        raise PeerError(f"{proxy} is not a proxy") from failed
    return {each.address for each in workers}
