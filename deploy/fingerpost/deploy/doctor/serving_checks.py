"""Whether the workers of this machine serve: each answers an image, and each proxy names them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.doctor.finding import KNOWN_CREDENTIAL, error, ok
from fingerpost.deploy.join.first_image import send_first_images
from fingerpost.deploy.join.proxy_lookup import look_up
from fingerpost.errors import (
    FingerpostError,
    Forbidden,
    Unauthenticated,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.credential import Credential
    from fingerpost.deploy.doctor.finding import Finding
    from fingerpost.registry import RegistryConfig
    from fingerpost.security.tls.config import TlsConfig

__all__ = ["check_named", "check_serving"]

_PAUSE_S: Final = 0.3


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
            answers = await send_first_images(
                registry, registry_config, tls, left_s, proxies=proxies, credential=credential
            )
            break
        except (Unauthenticated, Forbidden) as failed:  # asking again only slows its answers down
            return [error("proxy", str(failed), KNOWN_CREDENTIAL)]
        except FingerpostError as failed:
            if time.monotonic() > end:
                remedy = "look at its log: journalctl -u 'fingerpost-worker*'"
                return [error("worker", str(failed), remedy)]
        await asyncio.sleep(_PAUSE_S)
    found = [ok(f"worker {worker}", answer) for worker, answer in answers.items()]
    left_s = end - time.monotonic()
    return [*found, *await check_named(proxies, list(answers), tls, credential, left_s)]


async def check_named(
    proxies: Sequence[str],
    workers: Sequence[str],
    tls: TlsConfig | None,
    credential: Credential | None,
    within_s: float,
) -> list[Finding]:
    """Wait until proxies name workers, at most `within_s` seconds for all proxies together.

    Args:
        proxies, tls, credential: see `ClusterChecks`.
        workers: each as `host:port model`.

    Returns:
        A finding for each proxy.
    """
    end = time.monotonic() + within_s
    wanted = [tuple(worker.rsplit(" ", 1)) for worker in workers]
    return [await _named(each, wanted, tls, credential, end) for each in proxies]


async def _named(
    proxy: str,
    wanted: Sequence[tuple[str, ...]],
    tls: TlsConfig | None,
    credential: Credential | None,
    end: float,
) -> Finding:
    """Whether a proxy names all of these pairs of an address and a model."""
    began = time.monotonic()
    while True:
        try:
            missing = [
                f"{model} at {address}"
                for address, model in wanted
                if address not in (await look_up(proxy, model, tls, credential)).addresses
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
