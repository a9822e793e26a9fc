"""From a model's name and an image to an answer: look up, pick, send, and go on after failures."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from fingerpost.client.dispatch.service import Service
from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.images.shrink import shrink
from fingerpost.client.route.route import Origin
from fingerpost.client.routing import Budget, Outcome, Pick
from fingerpost.client.transport.deadlines import Limited
from fingerpost.errors import (
    CallerError,
    DeadlineExceeded,
    NoWorker,
    UnknownModel,
    UnknownService,
    Unreachable,
)

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.dispatch.call import Job
    from fingerpost.client.images.load import ImageSource
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.result import Stats
    from fingerpost.client.route.route import Way
    from fingerpost.client.transport.deadlines import Sweep
    from fingerpost.client.transport.transport import Reply, Transport
    from fingerpost.client.transport.upload import Upload
    from fingerpost.client.wire import ClassifyAnswer
    from fingerpost.registry import Snapshot

__all__ = ["Dispatcher"]

_NOBODY: Final[AbstractSet[str]] = frozenset()
_NOWHERE: Final = Origin()


class _Deadline(Limited):
    """A request, which ends at its deadline."""

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        super().__init__()
        self.at = at

    def check(self, now: float) -> None:
        """See `Sweep`."""
        if now >= self.at:
            self.cut("deadline")


class Dispatcher:
    """Sends images to workers. It owns neither the resolver nor the transport."""

    def __init__(
        self,
        resolver: Resolver,
        transport: Transport,
        sweep: Sweep,
        config: ClientConfig,
        stats: Stats,
        way: Way,
    ) -> None:
        self._way = way
        self._sweep = sweep
        self._resolver = resolver
        self._transport = transport
        self._config = config
        self._stats = stats
        self._budget = Budget(config.routing.retries)
        self._services: dict[str, Service] = {}
        self._rng = random.Random()
        self._clock = asyncio.get_running_loop().time

    async def aclose(self) -> None:
        """End what runs in the background."""
        for service in self._services.values():
            await service.prober.aclose()

    @property
    def lookups(self) -> int:
        """Polls made so far, for all services; may be read from another thread."""
        return sum(service.watch.polls for service in list(self._services.values()))

    def origin(self, job: Job) -> Origin:
        """Who answered, or who was asked last."""
        return _NOWHERE if job.peer is None else self._way.origin(job.peer, job.worker)

    async def resolve(self, service: str) -> Snapshot:
        """The present snapshot of a service, waiting for the first one.

        Raises:
            RegistryError: no first answer within `no_worker_s`.
            UnknownService: the registry has no such service.
        """
        found = await self._service(service)
        view = await found.watch.ready(self._config.no_worker_s)
        if not view.known:
            raise _unknown(service)
        return view

    async def run(self, job: Job, image: ImageSource) -> ClassifyAnswer:
        """Load the image and classify it on whichever worker answers before the deadline.

        Raises what `Client.classify` says.
        """
        limited = _Deadline(job.deadline)
        self._sweep.add(limited)
        try:
            return await self._run(job, image)
        except asyncio.CancelledError:
            if limited.was_cut():
                raise _late(job) from job.last_error
            raise
        finally:
            self._sweep.discard(limited)

    async def _run(self, job: Job, image: ImageSource) -> ClassifyAnswer:
        if not job.shrink:
            data = await load_image(image)
        service = self._services.get(job.reference.model)
        if service is None or service.watch.view is None:
            service = await self._service(job.reference.model)
        if job.shrink:
            data = await self._shrunk(job, service, image)
        body_bytes = 0 if isinstance(data, OneShot) else len(data)
        job.image_bytes = body_bytes
        now = self._clock()
        self._refresh(service, now)
        self._budget.request(now, body_bytes)
        await service.begin(job.reference, body_bytes / 1e6, now)
        tried = _NOBODY
        rounds = 0
        empty_until: float | None = None
        in_vain: int | None = None  # bytes of a failed attempt whose retry is not paid for yet
        while True:
            now = self._clock()
            self._refresh(service, now)
            if in_vain is not None and not self._budget.spend(now, in_vain):
                # The budget limits how fast, not whether: an image that waits harms nobody.
                await service.changed(self._config.routing.retries.backoff_s(rounds, self._rng))
                rounds += 1
                continue
            in_vain = None
            pick = service.balancer.pick(
                job.reference, tried=tried, now=now, rng=self._rng, key=job.sticky
            )
            if isinstance(pick, Pick):
                upload, reply = await self._send(job, service, pick, data, tried)
                if reply.answer is not None:
                    return reply.answer
                self._failed(job, service, reply, data)
                in_vain = upload.sent_bytes
                tried = tried | {pick.endpoint.id}
                empty_until = None
            elif pick is None:
                if empty_until is None:
                    empty_until = now + self._config.no_worker_s
                _check_served(service.balancer.snapshot, job, late=now >= empty_until)
                await service.changed(empty_until - now)
            else:
                if pick.until >= job.deadline:
                    raise _late(job) from job.last_error
                jitter_s = self._config.routing.retries.backoff_s(rounds, self._rng)
                await service.changed(max(0.0, pick.until - now) + jitter_s)
                tried = _NOBODY
                rounds += 1

    async def _send(
        self,
        job: Job,
        service: Service,
        pick: Pick,
        data: bytes | OneShot,
        tried: AbstractSet[str],
    ) -> tuple[Upload, Reply]:
        """One attempt, or two where the first is late and hedging is on."""
        upload = self._transport.upload(data, deadline=job.deadline)
        if not self._config.hedge or isinstance(data, OneShot):
            return upload, await self._attempt(job, service, pick, upload)
        first = asyncio.create_task(self._attempt(job, service, pick, upload))
        tasks = {first}
        try:
            if await self._late(first, upload, service):
                second = self._second(job, service, len(data), tried | {pick.endpoint.id})
                if second is not None:
                    again = self._transport.upload(data, deadline=job.deadline)
                    tasks.add(asyncio.create_task(self._attempt(job, service, second, again)))
            waiting = tasks
            while True:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    reply = task.result()
                    if reply.answer is not None or not waiting:
                        return upload, reply
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _late(self, attempt: asyncio.Task[Reply], upload: Upload, service: Service) -> bool:
        """Wait until the attempt ends, or is past the delay after its upload: True."""
        delay_s = min(service.hedge.delay_s, self._config.silence_s)
        while not attempt.done():
            since = self._clock() if upload.sent_at is None else upload.sent_at
            left_s = since + delay_s - self._clock()
            if left_s <= 0:
                return True
            await asyncio.wait((attempt,), timeout=left_s)
        return False

    def _second(
        self, job: Job, service: Service, body_bytes: int, tried: AbstractSet[str]
    ) -> Pick | None:
        now = self._clock()
        pick = service.balancer.pick(job.reference, tried=tried, now=now, rng=self._rng)
        if not isinstance(pick, Pick):
            return None
        if not self._budget.spend(now, body_bytes):
            pick.release(Outcome.ABANDONED, now=now, rng=self._rng)
            return None
        self._stats.hedges += 1
        return pick

    async def _attempt(self, job: Job, service: Service, pick: Pick, upload: Upload) -> Reply:
        job.attempts += 1
        job.peer = instance = pick.endpoint.instance
        job.worker = ""
        stats = self._stats
        stats.attempts += 1
        outcome, reply = Outcome.ABANDONED, None
        try:
            reply = await self._transport.classify(
                instance.address, str(job.reference), job.top, upload, job.headers
            )
            outcome = reply.outcome
            job.peer = instance
            job.worker = reply.worker
            if outcome is Outcome.REFUSED and isinstance(reply.error, Unreachable):
                stats.stale_addresses += 1
        except asyncio.CancelledError:
            # The deadline came: the worker was slow. Anything else is the caller's own wish.
            if self._clock() >= job.deadline:
                outcome = Outcome.FAILED
            raise
        finally:
            self._way.count(stats, upload.sent_bytes)
            job.image_bytes = upload.sent_bytes or job.image_bytes
            service.ended(pick, outcome, upload, reply)
        return reply

    def _failed(self, job: Job, service: Service, reply: Reply, data: bytes | OneShot) -> None:
        """Note a failed attempt; raise its error where there is to be no other."""
        error = reply.error
        if error is None:
            raise RuntimeError("an attempt ended with neither an answer nor an error")
        job.failed += reply.outcome is Outcome.FAILED
        again = error.retryable or _others_may(job, service, reply)
        if not again or job.failed >= self._config.routing.retries.max_attempts:
            raise error
        if isinstance(data, OneShot) and data.begun:
            error.add_note("The image was read from a source that can be read only once.")
            raise error
        job.last_error = error
        job.retried = (*job.retried, error.code)
        retries = self._stats.retries
        retries[error.code] = retries.get(error.code, 0) + 1

    async def _shrunk(self, job: Job, service: Service, image: ImageSource) -> bytes | OneShot:
        size = service.wanted_size(job.reference)
        original = await load_image(image)
        if size is None or isinstance(original, OneShot):
            return original
        loop = asyncio.get_running_loop()
        data = await loop.run_in_executor(None, shrink, original, *size)
        self._stats.bytes_spared += len(original) - len(data)
        return data

    def _refresh(self, service: Service, now: float) -> None:
        if service.refresh(now):
            self._transport.retain(
                {
                    each.instance.address
                    for one in self._services.values()
                    for each in one.balancer.endpoints
                }
            )

    async def _service(self, name: str) -> Service:
        """The service's watch and table, once the first snapshot is there."""
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = Service(
                self._resolver.watch(name),
                self._transport,
                self._config,
                self._rng,
                self._stats,
                self._way,
            )
        await service.watch.ready(self._config.no_worker_s)
        return service


def _others_may(job: Job, service: Service, reply: Reply) -> bool:
    """Whether what the caller did wrong is wrong with this peer only, as far as is known.

    It is not once all have said the same, and nothing else has happened to the image.
    """
    error = reply.error
    if not isinstance(error, CallerError) or reply.outcome is Outcome.ANSWERED:
        return False
    told = {*job.retried, error.code}
    return len(told) > 1 or len(job.retried) + 1 < len(service.balancer.endpoints)


def _late(job: Job) -> DeadlineExceeded:
    last = job.last_error
    return DeadlineExceeded(
        f"{job.reference}: no answer by the deadline, after {job.attempts} attempts; "
        f"{f'the last one failed: {last}' if last else 'give more time (timeout_s)'}"
    )


def _check_served(snapshot: Snapshot | None, job: Job, *, late: bool) -> None:
    """Say why there is no worker to pick, unless one may still come."""
    name = job.reference.model
    if snapshot is None:
        return
    if not snapshot.known:
        raise _unknown(name)
    if snapshot.instances:
        models = [each for one in snapshot.instances for each in one.models if each.name == name]
        versions = sorted({version for each in models for version in each.versions}, key=int)
        aliases = sorted({alias for each in models for alias in each.aliases})
        raise UnknownModel(
            f"no worker of {name!r} serves {job.reference}; there are versions "
            f"{', '.join(versions) or 'none'} and aliases {', '.join(aliases) or 'none'}"
        )
    if late:
        raise NoWorker(
            f"{name!r} is known, but no healthy worker serves it; start one, or wait for one "
            "longer (no_worker_s)"
        ) from job.last_error


def _unknown(service: str) -> UnknownService:
    return UnknownService(
        f"no service {service!r}: the name is mistyped, or no worker of it has registered yet"
    )
