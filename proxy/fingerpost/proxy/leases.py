"""The leases that a proxy signs: its key, the published keys, and who gets which lease."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.supervision import supervise
from fingerpost.client.wire import LEASE_PATH, is_foreign
from fingerpost.errors import ConfigurationError, FingerpostError, RegistryDenied
from fingerpost.registry.documents import LEASE_KEYS
from fingerpost.security.key_files import SigningKeyFile
from fingerpost.security.keys import PublicKeys
from fingerpost.security.leases.signer import LeaseSigner
from fingerpost.security.tls import peer_certificate

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.proxy.config import ProxyLeasesConfig
    from fingerpost.proxy.directory import Directory
    from fingerpost.registry import Instance, Registry
    from fingerpost.security.caller import Caller

__all__ = ["ProxyLeases"]

logger = logging.getLogger(__name__)

# How often the key's file is looked at, and how often the registry, in seconds.
_FILE_S: Final = 1.0
_REGISTRY_S: Final = 5.0
# A lease is handed out with half of its life left. A client whose lookup is held asks again after
# a sixth of it, so that a third is left for an outage.
_HELD: Final = 1 / 6


class ProxyLeases:
    """Signs leases for callers. An asynchronous context manager.

    It publishes its public key only where the registry has no keys at all: at the first start, and
    after an embedded registry has lost its memory. Everything else is `fingerpost keys`.

    Args:
        config: its `key_file` must be set.
        registry: keeps the public keys.
        directory: knows how many workers share a lease's limits.

    Raises:
        ConfigurationError: the key file cannot be used.
    """

    def __init__(self, config: ProxyLeasesConfig, registry: Registry, directory: Directory) -> None:
        if config.key_file is None:
            raise ConfigurationError("a proxy without a key (--lease-key) cannot sign leases")
        self._config = config
        self._registry = registry
        self._directory = directory
        self._file = SigningKeyFile(config.key_file)
        self._key = self._file.current()
        self._published = PublicKeys()
        self._told = ""
        self._signer = LeaseSigner(lambda: self._key, config.signing, time.time)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        for work, name in ((self._follow_file, "lease key"), (self._follow_keys, "lease keys")):
            self._tasks.append(asyncio.create_task(supervise(work, name), name=name))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def held_s(self) -> float:
        """How long a lookup may be held, so that its client gets the next lease in time."""
        return self._config.signing.life_s * _HELD

    @property
    def keys(self) -> PublicKeys:
        """The public keys of all proxies, and of this one."""
        return self._published.having(self._key.public)

    def token(self, caller: Caller, service: str, request: web.Request | None) -> str:
        """A lease for a caller's images, for a program that renews it.

        Args:
            request: whose certificate it is bound to, where that is wanted; None binds it to none.
        """
        return self._signer.sign(
            caller,
            service,
            workers=self._workers(service),
            thumbprint=self._thumbprint(request),
        ).token

    def path(self, caller: Caller, worker: Instance, request: web.Request | None) -> str:
        """`/lease/TOKEN`, for a URL that is used once; empty for a server that is not ours.

        Args:
            request: see `token`.
        """
        if worker.boot_id and is_foreign(worker):
            return ""
        signed = self._signer.sign(
            caller,
            worker.service,
            workers=self._workers(worker.service),
            thumbprint=self._thumbprint(request),
            life_s=self._config.signing.url_life_s,
        )
        return f"{LEASE_PATH}{signed.token}"

    def _thumbprint(self, request: web.Request | None) -> str | None:
        if request is None or not self._config.bind:
            return None
        shown = peer_certificate(request.transport)
        return None if shown is None else shown.thumbprint

    def _workers(self, service: str) -> int:
        snapshot = self._directory.snapshot(service)
        return 1 if snapshot is None else len(snapshot.instances)

    async def _follow_file(self) -> None:
        while True:
            await asyncio.sleep(_FILE_S)
            key = self._file.current()
            if key.kid != self._key.kid:
                logger.info("leases are signed with the key %s from now on", key.kid)
                self._key = key

    async def _follow_keys(self) -> None:
        while True:
            try:
                await self._read_published()
            except FingerpostError as error:
                self._tell(f"the public keys of leases in the registry: {error}")
            await asyncio.sleep(_REGISTRY_S)

    async def _read_published(self) -> None:
        document = await self._registry.document(LEASE_KEYS)
        if document is None:
            try:
                await self._registry.publish(LEASE_KEYS, self._key.public.encode())
            except RegistryDenied as error:
                self._tell(
                    f"no public key of leases is published, so workers refuse those that this "
                    f"proxy signs with {self._key.kid}: run `fingerpost keys publish`, which this "
                    f"proxy may not do: {error}"
                )
                return
            logger.info("published the public key of leases, %s: there was none", self._key.kid)
            self._published = self._key.public
        else:
            self._published = PublicKeys.decode(document, "the registry's document of lease keys")
        if self._key.kid in self._published:
            self._told = ""
        else:
            self._tell(
                f"the key {self._key.kid} that this proxy signs with is not among the published "
                f"ones ({', '.join(self._published.kids)}), so workers refuse its leases: run "
                "`fingerpost keys publish`, or use the published key"
            )

    def _tell(self, what: str) -> None:
        """Log it once, until something else is wrong."""
        if what != self._told:
            logger.warning("%s", what)
        self._told = what
