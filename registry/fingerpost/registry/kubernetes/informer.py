"""One watch of a namespace's Leases and one of its EndpointSlices, for all who ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fingerpost.basics.backoff import Backoff
from fingerpost.registry.kubernetes.codec import LeaseEntry, Slice, decode_lease, decode_slice
from fingerpost.registry.kubernetes.reflector import Reflector
from fingerpost.registry.kubernetes.state import NamespaceState

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fingerpost.errors import FingerpostError
    from fingerpost.registry.kubernetes.http import KubernetesHttp
    from fingerpost.registry.kubernetes.lists import Collection
    from fingerpost.registry.watching.rules import WatchConfig

__all__ = ["Informer"]


class Informer:
    """Two reflectors and the state that they keep, however many services are watched.

    Args:
        http: the API server.
        leases, slices: the collections.
        config: how long a watch is held, and the delays after failures.
    """

    def __init__(
        self,
        http: KubernetesHttp,
        leases: Collection,
        slices: Collection,
        *,
        config: WatchConfig,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self.state = NamespaceState()
        backoff = Backoff(base_s=config.backoff_base_s, cap_s=config.backoff_cap_s)
        self._leases: Reflector[LeaseEntry] = Reflector(
            http, leases, decode_lease, self.state.lease_changed,
            wait_s=config.wait_s, backoff=backoff, clock=clock, rng=rng,
        )  # fmt: skip
        self._slices: Reflector[Slice] = Reflector(
            http, slices, decode_slice, self.state.slice_changed,
            wait_s=config.wait_s, backoff=backoff, clock=clock, rng=rng,
        )  # fmt: skip
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def error(self) -> FingerpostError | None:
        """Why the state may be out of date; None where it is not."""
        return self._leases.error or self._slices.error

    @property
    def confirmed_at(self) -> float:
        """When the server last confirmed all of it."""
        return min(self._leases.confirmed_at, self._slices.confirmed_at)

    @property
    def index(self) -> int:
        """A number that grows with each change: the newest resource version."""
        versions = (self._leases.version, self._slices.version)
        return max(1, *(int(each) if each.isdigit() else 1 for each in versions))

    @property
    def lists(self) -> int:
        """How often the Leases were listed anew."""
        return self._leases.lists

    async def ready(self) -> None:
        """Wait until both collections were read, or failed. Starts the watches."""
        if not self._tasks:
            self._tasks = [
                asyncio.create_task(each.run(), name=f"watch of Kubernetes' {what}")
                for what, each in (("leases", self._leases), ("slices", self._slices))
            ]
        await self._leases.ready.wait()
        await self._slices.ready.wait()

    async def aclose(self) -> None:
        """End the watches."""
        tasks, self._tasks = self._tasks, []
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
