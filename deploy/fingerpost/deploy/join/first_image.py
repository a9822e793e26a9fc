"""The first image of a new node: sent to its own workers, past all others."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from PIL import Image

from fingerpost.deploy.join.proxy_lookup import look_up
from fingerpost.errors import (
    FingerpostError,
    Forbidden,
    LeaseError,
    LeaseInvalid,
    NoWorker,
    PeerError,
    Unauthenticated,
    error_from_json,
)
from fingerpost.registry import ModelReference, open_registry
from fingerpost.registry.own_address import is_own_address
from fingerpost.registry.peers.session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.credential import Credential
    from fingerpost.registry import Instance, RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["send_first_images"]

_ANSWER_S: Final = 60.0
_MAX_BYTES: Final = 1 << 20
_PAUSE_S: Final = 0.5
# For a proxy that has not heard of a new worker yet.
_LEASE_S: Final = 10.0
_LEASE_ALONE: Final = "answers, and takes images only with a lease"


async def send_first_images(
    registry_url: str,
    registry_config: RegistryConfig,
    tls: TlsConfig | None,
    timeout_s: float,
    *,
    proxies: Sequence[str] = (),
    credential: Credential | None = None,
) -> dict[str, str]:
    """Send an image to each worker of this machine, once the registry lists one.

    Args:
        registry_url, registry_config: the registry.
        tls: certificates for workers and proxies.
        timeout_s: in seconds, until the registry lists a worker.
        proxies: these are asked for a lease where a worker requires one; without any, such a
            worker counts as one that answers.
        credential: what the proxies are shown, if they ask.

    Returns:
        By `host:port model`, what it answered, in words.

    Raises:
        NoWorker: the registry lists none of this machine within `timeout_s`.
        FingerpostError: a worker answered with an error, or no proxy gives a lease for it.
    """
    registry = open_registry(registry_url, registry_config, tls=tls)
    end = time.monotonic() + timeout_s
    try:
        while True:
            workers = [
                instance
                for service in (await registry.catalog()).services
                for instance in (await registry.list(service)).instances
                if is_own_address(instance.host)
            ]
            if workers:
                break
            if time.monotonic() > end:
                raise NoWorker(
                    f"the registry lists no worker of this machine after {timeout_s:g} s: "
                    "`fingerpost status` says why"
                )
            await asyncio.sleep(_PAUSE_S)
    finally:
        await registry.aclose()
    answers = {}
    async with PeerSession(max_bytes=_MAX_BYTES) as session:
        for each in workers:
            lease = ""
            answer = await _send(session, each, ClientTls(tls), lease)
            if answer is None and proxies:
                lease = await _lease(proxies, each, tls, credential)
                answer = await _send(session, each, ClientTls(tls), lease)
            if answer is None and lease:
                raise LeaseInvalid(
                    f"{each.address} does not take the lease of {', '.join(proxies)}: let both use "
                    "the same keys of leases and name of the cluster"
                )
            answers[f"{each.address} {each.service}"] = answer or _LEASE_ALONE
    return answers


async def _lease(
    proxies: Sequence[str], worker: Instance, tls: TlsConfig | None, credential: Credential | None
) -> str:
    """A proxy's lease for a worker; empty where none of them signs one.

    Raises:
        Unauthenticated: the proxies do not know the credential; `Forbidden`: it may not ask.
        FingerpostError: no proxy names the worker within 10 s.
    """
    end = time.monotonic() + _LEASE_S
    while True:
        problem: FingerpostError | None = None
        for proxy in proxies:
            try:
                found = await look_up(proxy, worker.service, tls, credential)
            except FingerpostError as failed:
                problem = failed
                continue
            if worker.address in found.addresses and (found.lease or proxy == proxies[-1]):
                return found.lease
        if isinstance(problem, Unauthenticated | Forbidden):
            raise problem
        if time.monotonic() > end:
            raise problem or NoWorker(
                f"no proxy names {worker.address} after {_LEASE_S:g} s: {', '.join(proxies)}; look "
                "whether they use the same registry"
            )
        await asyncio.sleep(_PAUSE_S)


async def _send(session: PeerSession, worker: Instance, tls: ClientTls, lease: str) -> str | None:
    """What a worker answers to an image, in words; None where it requires another lease."""
    reference = ModelReference(worker.service)
    url = f"{worker.url}/v1/classify/{reference}"
    context = tls.for_worker(worker.service, speaks_tls=worker.speaks_tls, peer=worker.address)
    headers = {"Authorization": f"Bearer {lease}"} if lease else {}
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            session.request("POST", url, headers=headers, data=_image(), tls=context) as response,
        ):
            body = await session.read(response, worker.address)
            status = response.status
    except TimeoutError as error:
        text = f"{worker.address}: no answer to an image within {_ANSWER_S:g} s"
        raise PeerError(text) from error
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise peer_error(error, worker.address) from error
    if status == 200:
        return f"answered an image in {(time.monotonic() - began) * 1000:.0f} ms"
    problem = error_from_json(body, status=status, peer=worker.address)
    if isinstance(problem, LeaseError | Unauthenticated):
        return None
    raise problem if isinstance(problem, FingerpostError) else PeerError(str(problem))


def _image() -> bytes:
    """A gray PNG of 64 x 64 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()
