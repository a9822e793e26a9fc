"""Asks workers for their load reports, in the background and before long uploads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fingerpost.basics.supervision import count_unexpected
from fingerpost.errors import PeerError, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.result import Stats
    from fingerpost.client.routing import Balancer, Endpoint
    from fingerpost.client.transport.transport import Transport
    from fingerpost.registry import LoadReport, ModelReference

__all__ = ["Prober"]

# Limits the tasks that a thousand workers without an answer could hold.
_MAX_PROBES: Final = 64


class Prober:
    """The shell of one balancer's `Probing`: owns a task for each probe that is in flight.

    A worker gets no second probe before it has answered the first. A report that took longer than
    `ProbingConfig.max_rtt_s` is too old to be used, but its connection is kept. A worker that
    has not answered within `ClientConfig.probe_timeout_s` counts as stopped: the attempts that wait
    there are aborted, if there is another worker.

    Args:
        lease: returns the lease that images carry now; a report is about that tenant's images.
        priority: the class of the images.
    """

    def __init__(
        self,
        balancer: Balancer,
        transport: Transport,
        config: ClientConfig,
        rng: Random,
        stats: Stats,
        lease: Callable[[], str],
        priority: str | None = None,
    ) -> None:
        self._balancer = balancer
        self._transport = transport
        self._config = config
        self._max_rtt_s = config.routing.probing.max_rtt_s
        self._sync_timeout_s = config.routing.probing.sync_timeout_s
        self._rng = rng
        self._stats = stats
        self._lease = lease
        self._priority = priority
        self._clock = asyncio.get_running_loop().time
        self._probes: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._reference: ModelReference | None = None
        self._closed = False

    async def aclose(self) -> None:
        """End all probes."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._probes.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def on_request(
        self, reference: ModelReference, *, expected_s: float, reported_at: float, now: float
    ) -> set[asyncio.Task[None]]:
        """Send some probes because a request begins.

        Args:
            reference: the model of the request.
            expected_s: how many seconds upload and answer will probably take.
            reported_at: when the newest report was received.
            now: the event loop's time.

        Returns:
            The probes that the request is to wait for, by `answers`; mostly none.
        """
        if not self._choice():
            return set()
        probing = self._balancer.probing
        ahead: set[asyncio.Task[None]] = set()
        likely: Sequence[Endpoint] | None = None
        if probing.worth_waiting(expected_s, reported_at, now):
            likely = self._balancer.likely(reference, now, self._rng)
            count = probing.ahead(now, likely=likely is not None)
            ahead = self._ask(reference, count, now, likely)
        self._reference = reference
        count = probing.on_request(now, 0 if likely is None else len(ahead))
        if count:
            self._ask(reference, count, now)
        if self._timer is None:
            self._arm()
        return ahead

    async def answers(self, tasks: set[asyncio.Task[None]], now: float) -> None:
        """Wait until most of the probes are answered, `sync_timeout_s` from `now` at most."""
        until = now + self._sync_timeout_s
        for _ in range(self._balancer.probing.answers(len(tasks))):
            left_s = until - self._clock()
            if not tasks or left_s <= 0:
                return
            _, tasks = await asyncio.wait(
                tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )

    def _choice(self) -> bool:
        """Whether there are several workers to choose from; if not, a probe is of no use."""
        snapshot = self._balancer.snapshot
        return snapshot is not None and len(snapshot.instances) > 1 and not self._closed

    def _arm(self) -> None:
        at = self._balancer.probing.next_at()
        loop = asyncio.get_running_loop()
        self._timer = None if at == float("inf") else loop.call_at(at, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        try:
            count = self._balancer.probing.on_timer(now)
            if count and self._reference is not None:
                self._ask(self._reference, count, now)
        finally:
            self._arm()

    def _ask(
        self,
        reference: ModelReference,
        count: int,
        now: float,
        likely: Sequence[Endpoint] | None = None,
    ) -> set[asyncio.Task[None]]:
        started = set()
        count = min(count, _MAX_PROBES - len(self._probes))
        for endpoint in self._balancer.to_probe(
            reference, count, now, self._rng, likely=likely, asked=self._probes.keys()
        ):
            task = asyncio.create_task(self._probe(endpoint), name=f"probe of {endpoint.id}")
            self._probes[endpoint.id] = task
            started.add(task)
        return started

    async def _probe(self, endpoint: Endpoint) -> None:
        self._stats.probes += 1
        asked_at, before = self._clock(), endpoint.in_flight
        address = endpoint.instance.load_target
        question = asyncio.create_task(self._transport.load(address, self._lease(), self._priority))
        try:
            while not await self._answered(question):
                self._timed_out(endpoint)
                if not endpoint.in_flight:
                    return
            load = question.result()
            now = self._clock()
            rtt_s = now - asked_at
            if rtt_s <= self._max_rtt_s:
                self._balancer.probing.answered(rtt_s)
                unseen = max(0, endpoint.in_flight - before)
                self._balancer.reported(endpoint, load, now, probed=True, unseen=unseen)
            else:
                self._stats.probes_lost += 1
        except Unreachable:
            self._stats.probes_lost += 1
            endpoint.suspect(self._clock())
        except PeerError:
            self._stats.probes_lost += 1  # a server that has no /load, but may classify
        except Exception as error:
            self._stats.probes_lost += 1
            count_unexpected("probe of a worker", error)
        finally:
            question.cancel()
            await asyncio.gather(question, return_exceptions=True)
            del self._probes[endpoint.id]

    async def _answered(self, question: asyncio.Task[LoadReport]) -> bool:
        """Wait for the answer, `probe_timeout_s` at most.

        In two halves: a loop that was blocked runs the timer first and reads the answer after it.
        """
        for _ in range(2):
            await asyncio.wait((question,), timeout=self._config.probe_timeout_s / 2)
            if question.done():
                return True
        return False

    def _timed_out(self, endpoint: Endpoint) -> None:
        self._stats.probes_lost += 1
        endpoint.suspect(self._clock())
        target = endpoint.instance.target
        # What reports the load of a foreign worker may be another process than the worker.
        if self._choice() and endpoint.instance.load_target == target:
            self._stats.unresponsive += 1
            reason = f"no answer to /load for {self._config.probe_timeout_s:g} s (probe_timeout_s)"
            self._transport.abort(target, reason)
