"""An instance's entry in ZooKeeper, kept there until it is deregistered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.registry.errors import RegistryError, RegistryUnreachable
from fingerpost.registry.zookeeper_check import EngineCheck, HttpCheck
from fingerpost.registry.zookeeper_codec import SICK

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.zookeeper_entries import ZooKeeperEntries
    from fingerpost.registry.zookeeper_session import ZooKeeperSession

__all__ = ["ZooKeeperRegistration"]

logger = logging.getLogger(__name__)

# The delay after the first failure and the longest one, in seconds.
_BACKOFF_BASE_S: Final = 0.25
_BACKOFF_CAP_S: Final = 4.0
# After an outage every worker's session is back at once; they write spread over this time.
_SPREAD_S: Final = 0.5


class ZooKeeperRegistration:
    """Looks every `interval_s`, give or take a quarter, and at each reconnection, for its node.

    A node that is gone with an expired session is made again, but never while draining: an
    operator's drain marker outlives it, but one that was lost too must not bring it back.

    One lock orders what is said, so that a re-registration under way cannot overtake a drain or a
    deregistration.
    """

    def __init__(
        self,
        session: ZooKeeperSession,
        entries: ZooKeeperEntries,
        instance: Instance,
        *,
        check: HttpCheck | None,
        interval_s: float,
        call_timeout_s: float,
        rng: Random,
    ) -> None:
        self._session = session
        self._entries = entries
        self._instance = instance
        self._interval_s = interval_s
        self._call_timeout_s = call_timeout_s
        self._rng = rng
        self._lock = asyncio.Lock()
        self._wake = session.signal()
        self._task: asyncio.Task[None] | None = None
        self._check = EngineCheck(instance, check, self._tell) if check is not None else None
        self._draining = False
        self._drain_reason = ""
        self._drain_told = False
        self._deregistered = False
        self._conflict = False

    @property
    def instance(self) -> Instance:
        """What was registered."""
        return self._instance

    def start(self) -> Self:
        """Begin to keep the entry alive and to check the engine; needs a running loop."""
        self._task = asyncio.create_task(
            self._keep_alive(), name=f"registration {self._instance.id}"
        )
        if self._check is not None:
            self._check.start()
        return self

    async def drain(self, reason: str) -> None:
        """Take the instance off the healthy list, its entry staying.

        If the registry cannot be told now, it raises, and the background work goes on trying.

        Raises:
            RegistryError: the registry could not be told.
        """
        self._draining = True  # before the lock, so that no re-registration begins meanwhile
        self._drain_reason = reason
        async with self._lock:
            await self._tell_drain()

    async def undrain(self) -> None:
        """Put it back on the healthy list, registering it anew where it was forgotten.

        Raises:
            RegistryError: the registry could not be told; the instance goes on draining.
        """
        async with self._lock:
            if self._deregistered:
                return
            await self._entries.undrain(self._instance.service, self._instance.id)
            if await self._entries.is_kept(self._instance) is False:
                await self._put()
            self._draining = self._drain_told = False

    async def deregister(self) -> None:
        """Remove the entry and stop keeping it alive. Calling it again does nothing.

        Raises:
            RegistryError: the registry could not be told. The background work has ended all the
                same, the entry goes when the registry is closed, and a further call tries again.
        """
        async with self._lock:
            await self.stop()
            if not self._deregistered:
                await self._entries.remove(self._instance)
                self._deregistered = True

    async def stop(self) -> None:
        """End the background work; the entry stays."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        check, self._check = self._check, None
        if check is not None:
            await asyncio.to_thread(check.stop)

    def _tell(self, sick: bool) -> None:  # noqa: FBT001 (the only argument)
        """Called by the check, in its thread."""
        if not self._session.connected:
            raise RegistryUnreachable("no connection to ZooKeeper")
        path = self._entries.path(self._instance.service, self._instance.id + SICK)
        client = self._session.client
        if sick:
            with self._session.expected("NodeExistsError"):
                client.create_async(path, b"", ephemeral=True).get(timeout=self._call_timeout_s)
        else:
            with self._session.expected("NoNodeError"):
                client.delete_async(path).get(timeout=self._call_timeout_s)

    async def _tell_drain(self) -> None:
        if not self._deregistered:
            await self._entries.drain(self._instance.service, self._instance.id, self._drain_reason)
            self._drain_told = True

    async def _put(self) -> None:
        await self._entries.put(self._instance, sick=self._check is not None and self._check.sick)

    async def _keep_alive(self) -> None:
        failures = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._delay_s(failures)):
                    await self._wake.wait()
                    await asyncio.sleep(self._rng.uniform(0, _SPREAD_S))
            self._wake.clear()
            try:
                await self._beat()
            except RegistryError as error:
                if not failures:
                    logger.warning("registration %s: %s", self._instance.id, error)
                failures += 1
            except Exception:  # the worker goes on serving, and the entry being kept
                logger.exception("registration %s: unexpected error", self._instance.id)
                failures += 1
            else:
                if failures:
                    logger.info("registration %s: the registry answers again", self._instance.id)
                failures = 0

    def _delay_s(self, failures: int) -> float:
        if not failures:
            return self._interval_s * self._rng.uniform(0.75, 1.25)
        ceiling = min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2.0 ** min(failures, 16))
        return ceiling * self._rng.uniform(0.5, 1.0)

    async def _beat(self) -> None:
        async with self._lock:
            if self._draining:
                if not self._drain_told:
                    await self._tell_drain()
                return
            kept = await self._entries.is_kept(self._instance)
            if kept is None and not self._conflict:
                logger.error(
                    "registration %s: another process has registered this id with other content; "
                    "give every worker an id of its own",
                    self._instance.id,
                )
            self._conflict = kept is None
            if kept is False and not self._draining:
                logger.warning(
                    "registration %s: the registry lost it with its session; registering again",
                    self._instance.id,
                )
                await self._put()
