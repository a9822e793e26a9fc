"""The watch of one service, with self-preservation and stored snapshots."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol, Self

import msgspec

from fingerpost.basics.supervision import count_unexpected, supervise
from fingerpost.registry.snapshot import Snapshot
from fingerpost.registry.watching.self_preservation import ProbeResult, SelfPreservation
from fingerpost.registry.watching.watch import Poll, Watch

if TYPE_CHECKING:
    from random import Random

    from fingerpost.registry.instance import Instance
    from fingerpost.registry.snapshot import Catalog
    from fingerpost.registry.watching.rules import WatchConfig

__all__ = ["Probe", "ServiceWatch", "Store"]

logger = logging.getLogger(__name__)

# Probes a worker; never raises because of what the worker does. `LivenessProbe.probe` is one.
Probe = Callable[["Instance"], Awaitable[ProbeResult]]


class Store(Protocol):
    """Where a service's watch puts its snapshots: a `SnapshotStore`."""

    def put(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot, to be written soon. Never blocks, never raises."""
        ...

    async def load(self, service: str) -> Snapshot | None:
        """The last snapshot written, by whichever process, or None. Never raises."""
        ...

    async def catalog(self) -> Catalog | None:
        """The services that `load` has a snapshot of; None if none. Never raises."""
        ...

    async def aclose(self) -> None:
        """Write what still waits. The registry that was given the store calls this when closed."""
        ...


class ServiceWatch(Watch[Snapshot]):
    """The watch of one service: it probes workers before it believes a list that shrank.

    Args:
        poll: as for `Watch`.
        service: its name.
        probe: probes a worker during a suspicion (see `self_preservation`). None believes every
            list.
        store: where snapshots are kept across restarts, if anywhere. A stored one is published
            only if the registry does not answer the first poll. The first good poll is compared
            with it as with any other list.
    """

    def __init__(
        self,
        poll: Poll[Snapshot],
        *,
        service: str,
        name: str,
        probe: Probe | None = None,
        store: Store | None = None,
        config: WatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: Random | None = None,
    ) -> None:
        load = None if store is None else functools.partial(store.load, service)
        super().__init__(poll, name=name, load=load, config=config, clock=clock, rng=rng)
        self._probe = probe
        self._store = store
        preserving = self._config.self_preservation if probe is not None else None
        self._preservation = SelfPreservation(preserving) if preserving is not None else None
        self._listed: Snapshot | None = None
        self._probing: asyncio.Task[None] | None = None
        self._list_updated = asyncio.Event()

    def start(self) -> Self:
        """See `Watch.start`."""
        if self.running:
            return self
        super().start()
        if self._preservation is not None:
            self._preservation.restart(self._clock())
            self._keep_probing(self._preservation)
        return self

    async def aclose(self) -> None:
        """See `Watch.aclose`."""
        await super().aclose()
        task, self._probing = self._probing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _answers_again(self) -> None:
        if self.error is not None and self._preservation is not None:
            self._preservation.answers_again(self._clock())
        super()._answers_again()

    def _polled(self, view: Snapshot) -> None:
        self._listed = view
        if self._preservation is not None:
            before = self._preservation.suspicious
            self._preservation.update(view.instances, view.withdrawn, now=self._clock())
            if self._preservation.suspicious and not before:
                self.suspicions += 1
                logger.warning(
                    "watch %s: the registry lists %d instances and gives no reason why %d "
                    "vanished; probing the workers",
                    self._name,
                    len(view.instances),
                    len(self._preservation.retained),
                )
            self._keep_probing(self._preservation)
        self._publish_used()

    def _restore(self, stored: Snapshot) -> None:
        self._listed = stored
        if self._preservation is not None:
            self._preservation.update(stored.instances, (), now=self._clock())
        self._publish_used()

    def _publish_used(self) -> None:
        """Publish and store the instances in use: of the last list, and the retained ones."""
        view = self._listed
        if view is None:
            return
        if self._preservation is not None:
            retained = self._preservation.retained
            view = msgspec.structs.replace(
                view,
                instances=self._preservation.instances,
                retained=retained,
                known=view.known or bool(retained),
            )
        self._publish(view)
        if self._store is not None and self.view is not None:
            self._store.put(self.view)

    def _keep_probing(self, preservation: SelfPreservation) -> None:
        """After a new list: wake the task that probes, or start it where it is needed."""
        self._list_updated.set()
        idle = self._probing is None or self._probing.done()
        if preservation.suspicious and self._probe is not None and idle:
            self._probing = asyncio.create_task(
                supervise(
                    functools.partial(self._probe_workers, preservation, self._probe),
                    "probes of vanished workers",
                ),
                name=f"probing {self._name}",
            )

    async def _probe_workers(self, preservation: SelfPreservation, probe: Probe) -> None:
        """Probe the vanished instances, again and again, until the suspicion ends."""
        probes: dict[asyncio.Task[ProbeResult], Instance] = {}
        updated: asyncio.Task[Literal[True]] | None = None
        try:
            while True:
                for instance in preservation.due(self._clock()):
                    self.probes += 1
                    probes[asyncio.create_task(_safely(probe, instance))] = instance
                due_at = preservation.next_due_at()
                if due_at is None:
                    break
                if updated is None or updated.done():
                    self._list_updated.clear()
                    updated = asyncio.create_task(self._list_updated.wait())
                done, _ = await asyncio.wait(
                    {*probes, updated},
                    timeout=max(0.0, due_at - self._clock()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in [each for each in probes if each in done]:
                    instance = probes.pop(task)
                    preservation.probed(instance, task.result(), now=self._clock())
                self._publish_used()
        finally:
            left = [*probes, *([updated] if updated is not None else [])]
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self._probing = None
        self._publish_used()
        logger.info("watch %s: the registry's list is believed again", self._name)
        # A suspicion may have begun while the last probes were being cancelled.
        self._keep_probing(preservation)


async def _safely(probe: Probe, instance: Instance) -> ProbeResult:
    try:
        return await probe(instance)
    except Exception as error:  # a bug must not end the probing
        count_unexpected("probes of vanished workers", error)
        return ProbeResult.UNRESPONSIVE
