"""From a model's name and an image to an answer: resolve, pick a worker, send, and retry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Set as AbstractSet
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.dispatch.endings import (
    check_served,
    left_out,
    too_late,
    unknown_service,
    worth_another_entry,
    worth_another_peer,
)
from fingerpost.client.dispatch.foreign import ForeignSender
from fingerpost.client.dispatch.leases import Leases, own_lease
from fingerpost.client.dispatch.service import Service
from fingerpost.client.dispatch.suspect import Quarantine, count_silence
from fingerpost.client.images.frames import Frame, ImageData, is_frame
from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.images.shrink import shrink
from fingerpost.client.route.route import Origin
from fingerpost.client.routing import Budget, Outcome, Pick, RetryAt
from fingerpost.client.transport.deadlines import DeadlineScope
from fingerpost.client.wire import SUSPECT_HEADER, WAITED_HEADER
from fingerpost.errors import LeaseError, Overloaded, Unreachable

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.result import Stats
    from fingerpost.client.route.route import Route
    from fingerpost.client.tasks.inference import Inference
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.client.transport.deadlines import DeadlineScheduler
    from fingerpost.client.transport.reply import Reply
    from fingerpost.client.transport.transport import Transport
    from fingerpost.client.wire import ReceivedAnswer
    from fingerpost.registry import Snapshot

__all__ = ["Dispatcher"]

_NONE: Final[AbstractSet[str]] = frozenset()
_NO_ORIGIN: Final = Origin()


class Dispatcher:
    """Sends images to workers. Whoever makes it closes the resolver and the transport."""

    def __init__(
        self,
        resolver: Resolver,
        transport: Transport,
        deadlines: DeadlineScheduler,
        config: ClientConfig,
        stats: Stats,
        route: Route,
    ) -> None:
        self._route = route
        self._leases = Leases(resolver, own_lease(config))
        self._deadlines = deadlines
        self._resolver = resolver
        self._transport = transport
        self._foreign = ForeignSender(transport, route, config.labels)
        self._config = config
        self._stats = stats
        self._budget = Budget(config.routing.retries)
        self._quarantine = Quarantine()
        self._services: dict[str, Service] = {}
        self._rng = random.Random()
        self._clock = asyncio.get_running_loop().time

    async def aclose(self) -> None:
        """End the background tasks."""
        for service in self._services.values():
            await service.aclose()
        await self._leases.aclose()

    @property
    def lookups(self) -> int:
        """How many polls were made, for all services; may be read from another thread."""
        return sum(watch.polls for watch in {each.watch for each in list(self._services.values())})

    def origin(self, call: Call) -> Origin:
        """What answered, or what was asked last."""
        return _NO_ORIGIN if call.peer is None else self._route.origin(call.peer, call.worker)

    async def resolve(self, service: str) -> Snapshot:
        """The current snapshot of a service; waits for the first one.

        Raises:
            RegistryError: no answer within `wait_for_ready_s`.
            UnknownService: the registry has no such service.
        """
        found = await self._service(service)
        view = await found.watch.ready(self._config.wait_for_ready_s)
        if not view.known:
            raise unknown_service(service)
        return view

    async def run(self, call: Call, image: ImageSource) -> ReceivedAnswer | Inference:
        """Load the image and classify it on any worker that answers before the deadline.

        Raises:
            FingerpostError: as `Client.classify`.
        """
        scope = DeadlineScope(call.deadline)
        self._deadlines.add(scope)
        try:
            return await self._run(call, image)
        except asyncio.CancelledError:
            if scope.cancelled_caught():
                service = self._services.get(call.service)
                raise too_late(call, service) from call.last_error
            raise
        finally:
            self._deadlines.discard(scope)
            if call.leave is not None:
                call.leave()
            if call.frame is not None:
                call.frame.release()

    async def _run(self, call: Call, image: ImageSource) -> ReceivedAnswer | Inference:
        if type(image) is bytes and image and not call.shrink:
            data: ImageData | None = image  # the common case, without a coroutine
        else:
            data = None if call.shrink or is_frame(image) else await load_image(image)
        service = self._services.get(call.service)
        if service is None or service.watch.view is None:
            service = await self._service(call.reference.model, call.priority, call.service)
        if data is None:
            data = await self._prepared(call, service, image)
        body_bytes = 0 if isinstance(data, OneShot) else len(data)
        call.image_bytes = body_bytes
        now = self._clock()
        self._refresh(service, now)
        self._budget.request(now, body_bytes)
        probes = service.begin(call.reference, body_bytes / 1e6, now)
        if probes:
            await service.prober.answers(probes, now)
        tried = _NONE
        rounds = 0
        no_worker_until: float | None = None
        unpaid_bytes: int | None = None  # of a failed attempt; its retry is not in the budget yet
        called = False  # it is this call's turn: it is the oldest of those that wait for a place
        while True:
            now = self._clock()
            self._refresh(service, now)
            if service.lines and not called and unpaid_bytes is None:
                line = service.lines.get(call.reference)
                if line:  # others wait, and new images do not overtake them
                    await line.turn(call.began, again=False)
                    called = True
                    continue
            loan = unpaid_bytes is not None and not self._budget.spend(now, unpaid_bytes)
            if loan and not self._budget.borrow(now):
                # The budget limits the rate of retries: an image that waits does no harm.
                await service.changed(self._config.routing.retries.backoff_s(rounds, self._rng))
                rounds += 1
                continue
            owed_bytes, unpaid_bytes = unpaid_bytes, None
            pick = service.balancer.pick(
                call.reference,
                tried=tried,
                now=now,
                rng=self._rng,
                key=call.sticky,
                mb=body_bytes / 1e6,
                deadline=call.deadline,
            )
            waits = isinstance(pick, RetryAt) and pick.overloaded
            if called and not waits:
                called = False
                service.turn_done(call.reference)
            if loan and not isinstance(pick, Pick):
                self._budget.repay(now, answered=False)
                unpaid_bytes = owed_bytes
            if isinstance(pick, Pick):
                answered = False
                try:
                    attempt, reply = await self._send(call, service, pick, data, tried)
                    answered = reply.answer is not None
                finally:
                    if loan:
                        self._budget.repay(self._clock(), answered=answered)
                if reply.answer is not None:
                    return reply.answer
                if isinstance(reply.error, LeaseError):
                    begun = isinstance(data, OneShot) and data.begun
                    await self._leases.renew(call, reply.error, begun=begun)
                    continue
                self._failed(call, service, reply, data)
                if reply.silent:
                    await self._quarantine.enter(call)
                # Neither backpressure nor a peer that is not what its entry says costs a retry.
                free = isinstance(reply.error, Overloaded) or reply.outcome is Outcome.STALE
                unpaid_bytes = None if free else attempt.sent_bytes
                if reply.outcome is not Outcome.OVERLOADED:  # its worker is left out as long as due
                    tried = tried | {pick.endpoint.id}
                no_worker_until = None
            elif pick is None:
                if no_worker_until is None:
                    no_worker_until = now + service.wait_for_worker_s()
                check_served(service, call, late=now >= no_worker_until)
                await service.changed(no_worker_until - now)
            elif pick.until >= call.deadline and not pick.full:
                if called:
                    service.turn_done(call.reference)
                raise left_out(call, wait_s=pick.until - now, left_s=call.deadline - now) from (
                    call.last_error
                )
            elif pick.overloaded:
                line = service.waiting(call.reference)
                await line.turn(call.began, until=pick.until, again=called)
                called, tried = True, _NONE
            else:
                jitter_s = self._config.routing.retries.backoff_s(rounds, self._rng)
                await service.changed(max(0.0, pick.until - now) + jitter_s)
                tried = _NONE
                rounds += 1

    async def _send(
        self,
        call: Call,
        service: Service,
        pick: Pick,
        data: ImageData,
        tried: AbstractSet[str],
    ) -> tuple[Attempt, Reply]:
        """One attempt, or two if hedging is on and the first one is late."""
        attempt = self._transport.attempt(data, deadline=call.deadline)
        if not self._config.hedge or isinstance(data, OneShot):
            return attempt, await self._try(call, service, pick, attempt)
        first = asyncio.create_task(self._try(call, service, pick, attempt))
        tasks = {first}
        try:
            if await self._late(first, attempt, service):
                second = self._second(call, service, len(data), tried | {pick.endpoint.id})
                if second is not None:
                    again = self._transport.attempt(data, deadline=call.deadline)
                    tasks.add(asyncio.create_task(self._try(call, service, second, again)))
            waiting = tasks
            while True:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    reply = task.result()
                    if reply.answer is not None or not waiting:
                        return attempt, reply
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _late(self, task: asyncio.Task[Reply], attempt: Attempt, service: Service) -> bool:
        """Wait until the attempt ends: False, or the hedging delay after its upload ends: True."""
        delay_s = min(service.hedge.delay_s, self._config.response_timeout_s)
        while not task.done():
            since = self._clock() if attempt.sent_at is None else attempt.sent_at
            left_s = since + delay_s - self._clock()
            if left_s <= 0:
                return True
            await asyncio.wait((task,), timeout=left_s)
        return False

    def _second(
        self, call: Call, service: Service, body_bytes: int, tried: AbstractSet[str]
    ) -> Pick | None:
        now = self._clock()
        pick = service.balancer.pick(call.reference, tried=tried, now=now, rng=self._rng)
        if not isinstance(pick, Pick):
            return None
        if not self._budget.spend(now, body_bytes):
            pick.release(Outcome.ABANDONED, now=now, rng=self._rng)
            return None
        self._stats.hedges += 1
        return pick

    async def _try(self, call: Call, service: Service, pick: Pick, attempt: Attempt) -> Reply:
        call.attempts += 1
        call.peer = instance = pick.endpoint.instance
        call.worker = ""
        ours = self._route.own_load and not instance.foreign
        call.lease = self._leases.of(call.reference.model) if ours else ""
        report = pick.endpoint.load_report
        attempt.boot_id = instance.boot_id if report is None else report.boot_id
        headers = call.headers
        # It refused some, or this one, itself or by a relay: see the worker's `OldestFirst`.
        if pick.endpoint.overload.limit < inf or Overloaded.code in call.retried:
            waited_ms = max(0, int((self._clock() - call.began) * 1000))
            headers = {**(headers or {}), WAITED_HEADER: str(waited_ms)}
        if call.silent:
            headers = {**(headers or {}), SUSPECT_HEADER: "1"}
        (stats := self._stats).attempts += 1
        outcome = Outcome.ABANDONED
        reply: Reply | None = None
        try:
            if not ours and instance.protocol != "fingerpost":
                reply = await self._foreign.classify(instance, call, attempt)
            else:
                reply = await self._transport.classify(
                    instance.target,
                    str(call.reference),
                    call.top,
                    attempt,
                    headers,
                    boot_id=instance.boot_id,
                    lease=call.lease,
                    infer=call.infer,
                )
            outcome = reply.outcome
            call.peer = instance
            call.worker = reply.worker
            if outcome is Outcome.REFUSED and isinstance(reply.error, Unreachable):
                stats.stale_addresses += 1
            elif outcome is Outcome.STALE:
                stats.stale_entries += 1
                call.disown(pick.endpoint.id, reply.error)
        except asyncio.CancelledError:
            # At the deadline the worker was too slow. Otherwise the caller has cancelled the call.
            if self._clock() >= call.deadline:
                outcome = Outcome.FAILED
            raise
        else:
            return reply
        finally:
            self._route.count(stats, attempt.sent_bytes)
            call.image_bytes = attempt.sent_bytes or call.image_bytes
            service.ended(pick, outcome, attempt, reply)

    def _failed(self, call: Call, service: Service, reply: Reply, data: ImageData) -> None:
        """Record a failed attempt; raise its error if there is not to be another attempt."""
        error = reply.error
        if error is None:
            raise RuntimeError("an attempt ended without an answer and without an error")
        call.failed += reply.outcome is Outcome.FAILED
        if reply.silent:
            count_silence(call, reply, data, self._stats)
        if reply.outcome is Outcome.STALE:
            again = worth_another_entry(call, service, self._clock())
            error = error if again else call.unknown or error
        else:
            again = error.retryable or worth_another_peer(call, service, reply)
        if not again or call.failed >= self._config.routing.retries.max_attempts:
            raise error
        if isinstance(data, OneShot) and data.begun:
            error.add_note("No retry: the image comes from a source that can be read only once.")
            raise error
        call.last_error = error
        call.retried = (*call.retried, error.code)
        retries = self._stats.retries
        retries[error.code] = retries.get(error.code, 0) + 1

    async def _prepared(self, call: Call, service: Service, image: ImageSource) -> ImageData:
        """The image made smaller, or a frame; both depend on the workers."""
        if not call.shrink:
            self._refresh(service, self._clock())
            data = await self._transport.frame(image, call.reference.model)
            call.frame = data if isinstance(data, Frame) else None
            return data
        size = service.wanted_size(call.reference)
        original = await load_image(image)
        if size is None or isinstance(original, OneShot):
            return original
        loop = asyncio.get_running_loop()
        small = await loop.run_in_executor(None, shrink, original, *size)
        self._stats.bytes_spared += len(original) - len(small)
        return small

    def _refresh(self, service: Service, now: float) -> None:
        if service.refresh(now):
            services = self._services.values()
            self._transport.use([e.instance for each in services for e in each.balancer.endpoints])

    async def _service(self, name: str, priority: str | None = None, key: str = "") -> Service:
        """The service, once it has its first snapshot."""
        service = self._services.get(key or name)
        if service is None:
            service = self._services[key or name] = Service(
                self._resolver.watch(name),
                self._transport,
                self._config,
                self._rng,
                self._stats,
                self._route,
                partial(self._leases.of, name),
                partial(self._resolver.request_start, name),
                priority,
            )
        await service.watch.ready(self._config.wait_for_ready_s)
        return service
