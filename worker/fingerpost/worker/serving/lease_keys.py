"""The public keys that leases are verified with, kept up to date in the background."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, Self

from fingerpost.basics.supervision import supervise
from fingerpost.errors import FingerpostError
from fingerpost.registry.documents import LEASE_KEYS
from fingerpost.security.key_files import PublicKeysFile
from fingerpost.security.keys import PublicKeys

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.registry import Registry
    from fingerpost.worker.config import LeasesConfig

__all__ = ["LeaseKeys"]

logger = logging.getLogger(__name__)

# How often keys are read again, in seconds. `fingerpost keys rotate` waits for several of these.
POLL_S: Final = 5.0
# While there are none.
_NONE_S: Final = 1.0


class LeaseKeys:
    """Keys from a file or from the registry, read again every 5 s.

    What was read last stays in use while the file is not valid, or the registry does not answer or
    has lost its memory, for as long as that lasts. An asynchronous context manager.

    Args:
        read: returns the keys now, None where there are none. Raises `FingerpostError`.
        source: where from, for the log.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[PublicKeys | None]],
        source: str,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        self._read = read
        self._source = source
        self._poll_s = poll_s
        self._keys = PublicKeys()
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def configured(cls, config: LeasesConfig, registry: Registry) -> LeaseKeys:
        """Keys from where the settings say. Raises `ConfigurationError`, see `from_file`."""
        if config.keys_file is not None:
            return cls.from_file(config.keys_file)
        return cls.from_registry(registry)

    @classmethod
    def from_file(cls, path: Path) -> LeaseKeys:
        """Keys from a JWKS file. Raises `ConfigurationError` where there are none now."""
        file = PublicKeysFile(path)

        async def read() -> PublicKeys:
            return file.current()

        return cls(read, str(path), poll_s=1.0)

    @classmethod
    def from_registry(cls, registry: Registry) -> LeaseKeys:
        """The keys that `fingerpost keys` has published."""

        async def read() -> PublicKeys | None:
            document = await registry.document(LEASE_KEYS)
            return None if document is None else PublicKeys.decode(document, "the registry")

        return cls(read, "the registry")

    def current(self) -> PublicKeys:
        """The keys that are believed now; the same object until they change."""
        return self._keys

    async def __aenter__(self) -> Self:
        await self._update()
        if not len(self._keys):
            logger.warning(
                "%s has no public keys, so every request is refused: run `fingerpost keys init`",
                self._source,
            )
        self._task = asyncio.create_task(supervise(self._follow, "lease keys"), name="lease keys")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            # The first proxy publishes its key when it starts, perhaps just now.
            await asyncio.sleep(self._poll_s if len(self._keys) else min(self._poll_s, _NONE_S))
            await self._update()

    async def _update(self) -> None:
        try:
            keys = await self._read()
        except FingerpostError as error:
            if not self._failing:
                logger.warning("%s; the lease keys read before stay in use", error)
            self._failing = True
            return
        self._failing = False
        if keys is not None and keys != self._keys:
            logger.info("leases of these keys are accepted: %s", ", ".join(keys.kids) or "none")
            self._keys = keys
