"""The worker's instances with their signatures, which are renewed long before they end."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fingerpost.registry.entry_signature import sign_entry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from fingerpost.registry import Instance
    from fingerpost.worker.config import WorkerConfig

__all__ = ["SignedInstances", "signed_instances"]

# How often it is looked whether the key or a signature is to be replaced.
_LOOK_S: Final = 10.0


def signed_instances(config: WorkerConfig) -> SignedInstances | None:
    """What signs the registrations of a worker; None where it has no key.

    Raises:
        ConfigurationError: see `SignedInstances`.
    """
    if config.registration.key is None:
        return None
    return SignedInstances(
        config.registration.key,
        life_s=config.registration.signature_life_s,
        wan_address=config.registry_config.wan_address,
    )


class SignedInstances:
    """Signs what is registered, and again only where it, its key or its time has changed.

    Args:
        path: the file of the private key.
        life_s: see `RegistrationConfig.signature_life_s`.
        wan_address: see `RegistryConfig.wan_address`.
        wall: Unix time.

    Raises:
        ConfigurationError: the file does not hold a private key, or others can read it.
    """

    def __init__(
        self,
        path: Path,
        *,
        life_s: float,
        wan_address: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        from fingerpost.security.key_files import SigningKeyFile

        self._key = SigningKeyFile(path)
        self._life_s = life_s
        self._wan_address = wan_address
        self._wall = wall
        self._signed: dict[str, tuple[Instance, str, float, Instance]] = {}

    def sign(self, instances: tuple[Instance, ...]) -> tuple[Instance, ...]:
        """The same instances with signatures; an Ed25519 signature takes 0.1 ms."""
        key, now = self._key.current(), self._wall()
        signed = []
        for instance in instances:
            before = self._signed.get(instance.service)
            if before is None or before[:2] != (instance, key.kid) or now >= before[2]:
                made = sign_entry(
                    instance,
                    key,
                    expires=int(now + self._life_s),
                    wan_address=self._wan_address,
                )
                before = instance, key.kid, now + self._life_s / 3, made
                self._signed[instance.service] = before
            signed.append(before[3])
        return tuple(signed)

    async def renew(self, sync: Callable[[], Awaitable[None]]) -> None:
        """Call `sync`, which sends changes to the registry, every 10 s; runs until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            await sync()
