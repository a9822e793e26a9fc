"""One service as a client uses it: its watch, its routing table, and its prober."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.basics.moving_average import ewma
from fingerpost.client.dispatch.prober import Prober
from fingerpost.client.dispatch.waiting import Waiting
from fingerpost.client.images.shrink import wanted_size
from fingerpost.client.routing import Balancer, HedgeDelay, Outcome, make_policy
from fingerpost.client.wire import RATES
from fingerpost.errors import BadAnswer
from fingerpost.registry import LoadReport

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.result import Stats
    from fingerpost.client.route.route import Route
    from fingerpost.client.routing import Endpoint, Pick
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.client.transport.reply import Reply
    from fingerpost.client.transport.transport import Transport
    from fingerpost.errors import NoWorker
    from fingerpost.registry import ModelReference, Snapshot, Watch

__all__ = ["Service"]

_SMOOTHING: Final = 0.1
_FAILURES: Final = frozenset({Outcome.FAILED, Outcome.REFUSED, Outcome.STALE})


class Service:
    """A watch of one service, and what it feeds for images of one priority class.

    Make it inside a running event loop.

    The workers of its routing table are the peers that images are sent to: see `Route.peers`.
    """

    def __init__(
        self,
        watch: Watch[Snapshot],
        transport: Transport,
        config: ClientConfig,
        rng: Random,
        stats: Stats,
        route: Route,
        lease: Callable[[], str],
        request_start: Callable[[], float],
        priority: str | None = None,
    ) -> None:
        self.watch = watch
        self._request_start = request_start
        self._wait_for_ready_s = config.wait_for_ready_s
        self._route = route
        self._seen: Snapshot | None = None
        self.balancer = Balancer(
            make_policy(config.routing), config.routing, config.client_id, priority
        )
        self.prober = Prober(self.balancer, transport, config, rng, stats, lease, priority)
        self.hedge = HedgeDelay()
        self.lines: dict[ModelReference, Waiting] = {}
        self._rng = rng
        self._clock = asyncio.get_running_loop().time
        self._stats = stats
        self._report_min_interval_s = config.routing.probing.report_min_interval_s
        self._reported_at = -inf
        self._seconds = 0.0
        self._mb = 0.0

    def refresh(self, now: float) -> bool:
        """Update the routing table from the watch, without waiting; True if that changed it."""
        view, seen = self.watch.view, self._seen
        if view is None or (
            seen is not None and view.index == seen.index and view.instances is seen.instances
        ):
            return False
        self._seen = view
        self.balancer.update(self._route.peers(view), now)
        return True

    def missing(self) -> NoWorker | None:
        """Why none of the workers that there are can be used; None if that is not so."""
        view = self.watch.view
        return None if view is None else self._route.missing(view)

    def wait_for_worker_s(self) -> float:
        """How many seconds to wait for a worker: `wait_for_ready_s`, or what a start may take.

        Where there is none, a proxy that holds lookups for its start is told that images wait.
        """
        view = self.watch.view
        if view is None or view.instances or not view.known:
            return self._wait_for_ready_s
        return max(self._wait_for_ready_s, self._request_start())

    async def changed(self, within_s: float) -> None:
        """Wait for a change of the snapshot, `within_s` seconds at most."""
        seen = self.balancer.snapshot
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.watch.changed(0 if seen is None else seen.index)

    def begin(
        self, reference: ModelReference, image_mb: float, now: float
    ) -> set[asyncio.Task[None]]:
        """Record that a request begins, and send probes; those to wait for are returned."""
        self._stats.images += 1
        view = self.watch.view
        if view is not None:
            self._stats.snapshot_age_s += max(0.0, now - view.taken_at)
        if not self._route.own_load:
            return set()
        expected_s = self._seconds / self._mb * image_mb if self._mb else 0.0
        return self.prober.on_request(
            reference, expected_s=expected_s, reported_at=self._reported_at, now=now
        )

    def wanted_size(self, reference: ModelReference) -> tuple[int, int] | None:
        """The image size that the model wants; see `shrink.wanted_size`."""
        view = self.watch.view
        return None if view is None else wanted_size(view.matching(reference))

    def ended(self, pick: Pick, outcome: Outcome, attempt: Attempt, reply: Reply | None) -> None:
        """Record that an attempt ended: with a reply, or cancelled."""
        now = self._clock()
        endpoint = pick.endpoint
        failed = outcome in _FAILURES
        was_usable = failed and endpoint.ejection.usable_from() <= now
        retry_after_s = worker_s = None
        rate_limited = False
        if reply is not None and reply.error is not None:
            retry_after_s = reply.error.retry_after_s
            rate_limited = reply.error.limit in RATES
        sent_mb = (attempt.sent_bytes + attempt.mapped_bytes) / 1e6
        if reply is not None and reply.answer is not None and attempt.sent_at is not None:
            timings = reply.answer.results[0].timings_ms
            if timings is not None:
                worker_s = (timings.decode + timings.queue + timings.inference) / 1000
            self.hedge.answered(now - attempt.sent_at)
            self._seconds = ewma(self._seconds, now - pick.at, _SMOOTHING)
            self._mb = ewma(self._mb, sent_mb, _SMOOTHING)
        pick.release(
            outcome,
            now=now,
            rng=self._rng,
            retry_after_s=retry_after_s,
            # Only an answer with predictions is a sample: a refusal is quick, and attracts nothing.
            sent_mb=sent_mb if reply is not None and reply.answer is not None else 0.0,
            worker_s=worker_s,
            # Servers that limit rates send no load report, or say so.
            backpressure=reply is not None and reply.report is not None and not rate_limited,
            cut_off=outcome is Outcome.FAILED and attempt.held_up,
        )
        if reply is not None and reply.report is not None and self._route.own_load:
            self._report(endpoint, reply.report, outcome, now)
        if self.lines:
            for each in self.lines.values():
                each.wake()
        if failed and (was_usable or pick.trial) and endpoint.ejection.usable_from() > now:
            self._stats.ejections += 1

    def released(
        self,
        pick: Pick,
        outcome: Outcome,
        *,
        sent_mb: float,
        retry_after_s: float | None = None,
    ) -> None:
        """Record how a request ended that the caller sent by himself."""
        now, ejection = self._clock(), pick.endpoint.ejection
        was_usable = ejection.usable_from() <= now
        pick.release(outcome, now=now, rng=self._rng, retry_after_s=retry_after_s, sent_mb=sent_mb)
        failed = outcome in _FAILURES
        if failed and (was_usable or pick.trial) and ejection.usable_from() > now:
            self._stats.ejections += 1

    def waiting(self, reference: ModelReference) -> Waiting:
        """The line of the calls that wait for a place at a worker of that model."""
        waiting = self.lines.get(reference)
        if waiting is None:
            waiting = self.lines[reference] = Waiting()
        return waiting

    def turn_done(self, reference: ModelReference) -> None:
        """The call whose turn it was waits no longer."""
        line = self.lines[reference]
        line.done()
        if not line:
            line.close()
            del self.lines[reference]

    async def aclose(self) -> None:
        """End the background tasks."""
        for each in self.lines.values():
            each.close()
        await self.prober.aclose()

    def _report(self, endpoint: Endpoint, header: str, outcome: Outcome, now: float) -> None:
        if (
            outcome is Outcome.ANSWERED
            and now - endpoint.load_report_at < self._report_min_interval_s
        ):
            return
        # An answer with an invalid load report is still an answer.
        with contextlib.suppress(BadAnswer):
            self.balancer.reported(endpoint, LoadReport.from_header(header), now, probed=False)
            self._reported_at = now
