"""The first image of a new node: sent to its own workers, past all others."""

from __future__ import annotations

import asyncio
import io
import time
from typing import TYPE_CHECKING, Final

import aiohttp
from PIL import Image

from fingerpost.errors import (
    FingerpostError,
    LeaseError,
    NoWorker,
    PeerError,
    Unauthenticated,
    error_from_json,
)
from fingerpost.registry import ModelReference, open_registry
from fingerpost.registry.own_address import is_own_address
from fingerpost.registry.peer_session import PeerSession, peer_error
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from fingerpost.registry import Instance, RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["send_first_images"]

_ANSWER_S: Final = 60.0
_MAX_BYTES: Final = 1 << 20
_PAUSE_S: Final = 0.5


async def send_first_images(
    registry_url: str, registry_config: RegistryConfig, tls: TlsConfig | None, timeout_s: float
) -> dict[str, str]:
    """Send an image to each worker of this machine, once the registry lists one.

    Returns:
        By `host:port model`, what it answered, in words.

    Raises:
        NoWorker: the registry lists none of this machine within `timeout_s`.
        FingerpostError: a worker answered with an error.
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
    async with PeerSession(max_bytes=_MAX_BYTES) as session:
        return {
            f"{each.address} {each.service}": await _send(session, each, ClientTls(tls))
            for each in workers
        }


async def _send(session: PeerSession, worker: Instance, tls: ClientTls) -> str:
    reference = ModelReference(worker.service)
    url = f"{worker.url}/v1/classify/{reference}"
    context = tls.for_worker(worker.service, speaks_tls=worker.speaks_tls, peer=worker.address)
    began = time.monotonic()
    try:
        async with (
            asyncio.timeout(_ANSWER_S),
            session.request("POST", url, data=_image(), tls=context) as response,
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
        return "answers, and takes images only with a lease"
    raise problem if isinstance(problem, FingerpostError) else PeerError(str(problem))


def _image() -> bytes:
    """A gray PNG of 64 x 64 pixels."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (128, 128, 128)).save(file, "PNG")
    return file.getvalue()
