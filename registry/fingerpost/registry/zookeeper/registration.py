"""An instance's entry in ZooKeeper, kept there until it is deregistered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.errors import RegistryUnreachable
from fingerpost.registry.registration import HeartbeatRegistration
from fingerpost.registry.zookeeper.check import EngineCheck, HttpCheckConfig
from fingerpost.registry.zookeeper.codec import SICK

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.zookeeper.entries import ZooKeeperEntries
    from fingerpost.registry.zookeeper.session import ZooKeeperSession

__all__ = ["ZooKeeperRegistration"]

logger = logging.getLogger(__name__)

# After an outage every worker's session is back at once; they write spread over this time.
_SPREAD_S: Final = 0.5


class ZooKeeperRegistration(HeartbeatRegistration):
    """A node that is gone with an expired session is made again, at the next reconnection.

    An operator's drain marker outlives the session, but one that was lost too must not bring the
    instance back.
    """

    def __init__(
        self,
        session: ZooKeeperSession,
        entries: ZooKeeperEntries,
        instance: Instance,
        *,
        check: HttpCheckConfig | None,
        interval_s: float,
        call_timeout_s: float,
        rng: Random,
    ) -> None:
        super().__init__(instance, interval_s=interval_s, rng=rng)
        self._session = session
        self._entries = entries
        self._call_timeout_s = call_timeout_s
        self._wake = session.signal()
        self._check = EngineCheck(instance, check, self._tell) if check is not None else None
        self._conflict = False

    def start(self) -> Self:
        """See `HeartbeatRegistration.start`; the engine's check starts too."""
        super().start()
        if self._check is not None:
            self._check.start()
        return self

    async def stop(self) -> None:
        """See `HeartbeatRegistration.stop`; the engine's check ends too."""
        await super().stop()
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

    async def _tell_update(self) -> None:
        if await self._entries.is_registered(self._instance) is not False:
            await self._entries.replace(self._instance)
        elif not self.draining:  # else it would come back as healthy
            await self._put()

    async def _tell_drain(self, reason: str) -> None:
        await self._entries.drain(self._instance.service, self._instance.id, reason)

    async def _tell_undrain(self) -> None:
        await self._entries.undrain(self._instance.service, self._instance.id)
        if await self._entries.is_registered(self._instance) is False:
            await self._put()

    async def _remove(self) -> None:
        await self._entries.remove(self._instance)

    async def _put(self) -> None:
        await self._entries.put(self._instance, sick=self._check is not None and self._check.sick)

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._wake.wait()
                await asyncio.sleep(self._rng.uniform(0, _SPREAD_S))
        self._wake.clear()

    async def _look(self) -> None:
        if self.draining:
            return
        kept = await self._entries.is_registered(self._instance)
        if kept is None and not self._conflict:
            logger.error(
                "registration %s: another process has registered this id with other content; "
                "give every worker an id of its own",
                self._instance.id,
            )
        self._conflict = kept is None
        if kept is False and not self.draining:
            self._forgotten("the registry lost it with its session")
            await self._put()
