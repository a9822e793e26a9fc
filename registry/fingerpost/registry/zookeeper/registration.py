"""An instance's entry in ZooKeeper, kept there until it is deregistered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, Self

from fingerpost.errors import RegistryUnreachable
from fingerpost.registry.engine_check import EngineCheck, HttpCheckConfig
from fingerpost.registry.registration import HeartbeatRegistration
from fingerpost.registry.zookeeper.codec import SICK

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.zookeeper.entries import ZooKeeperEntries
    from fingerpost.registry.zookeeper.session import ZooKeeperSession
    from fingerpost.security.tls import TlsConfig

__all__ = ["ZooKeeperRegistration"]

logger = logging.getLogger(__name__)

# After an outage all workers' sessions return together; their writes are spread over this time.
_SPREAD_S: Final = 0.5


class ZooKeeperRegistration(HeartbeatRegistration):
    """Keeps an instance's node; creates it again after the session expired.

    An operator's drain marker outlives the session. A draining instance is not registered again
    even if its marker was lost too.
    """

    def __init__(
        self,
        session: ZooKeeperSession,
        entries: ZooKeeperEntries,
        instance: Instance,
        *,
        check: HttpCheckConfig | None,
        tls: TlsConfig | None = None,
        interval_s: float,
        call_timeout_s: float,
        rng: Random,
    ) -> None:
        super().__init__(instance, interval_s=interval_s, rng=rng)
        self._session = session
        self._entries = entries
        self._call_timeout_s = call_timeout_s
        self._wake = session.signal()
        self._check = EngineCheck(instance, check, self._report, tls) if check is not None else None
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

    def _report(self, sick: bool) -> None:  # noqa: FBT001 (the only argument)
        """Write or remove the marker; called by the check, in its thread."""
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

    async def _send_update(self) -> None:
        if await self._entries.is_registered(self._instance) is not False:
            await self._entries.replace(self._instance)
        elif not self.draining:  # else it would come back as healthy
            await self._put()

    async def _send_drain(self, reason: str) -> None:
        await self._entries.drain(self._instance.service, self._instance.id, reason)

    async def _send_undrain(self) -> None:
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

    async def _check_entry(self) -> None:
        if self.draining:
            return
        registered = await self._entries.is_registered(self._instance)
        if registered is None and not self._conflict:
            logger.error(
                "registration %s: another process has registered this id with other content; "
                "give every worker an id of its own",
                self._instance.id,
            )
        self._conflict = registered is None
        if registered is False and not self.draining:
            self._count_reregistration("its node was lost with its session")
            await self._put()
