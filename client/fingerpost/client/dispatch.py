"""From a model's name and an image to an answer: look up, pick, send, and go on after failures."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from fingerpost.client.image import load_image
from fingerpost.client.routing import Fleet, Outcome, Pick, PowerOfTwo
from fingerpost.registry import DeadlineExceeded, NoWorker, UnknownModel, UnknownService

if TYPE_CHECKING:
    from fingerpost.client.config import ClientConfig
    from fingerpost.client.image import ImageSource
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.result import Stats
    from fingerpost.client.transport import Reply, Transport
    from fingerpost.client.wire import ClassifyAnswer
    from fingerpost.registry import FingerpostError, Instance, ModelReference, Snapshot, Watch

__all__ = ["Dispatcher", "Job"]

_NOBODY: Final[AbstractSet[str]] = frozenset()


class Job:
    """One image on its way; the dispatcher notes here how far it has come.

    `deadline` is in the event loop's time; `worker` is the one that answered, or else the last
    one that was asked.
    """

    __slots__ = ("attempts", "deadline", "last_error", "reference", "top", "worker")

    def __init__(self, reference: ModelReference, *, top: int, deadline: float) -> None:
        self.reference = reference
        self.top = top
        self.deadline = deadline
        self.attempts = 0
        self.worker: Instance | None = None
        self.last_error: FingerpostError | None = None


class _Service:
    """One service's watch, and the routing table that is fed from it."""

    __slots__ = ("fleet", "watch")

    def __init__(self, watch: Watch[Snapshot], config: ClientConfig) -> None:
        self.watch = watch
        self.fleet = Fleet(PowerOfTwo(), config.routing)

    def refresh(self) -> None:
        """Bring the routing table up to the watch's view; without waiting, for every attempt."""
        view, seen = self.watch.view, self.fleet.snapshot
        if view is None:
            return
        if seen is None or view.index != seen.index or view.instances is not seen.instances:
            self.fleet.update(view)

    async def changed(self, within_s: float) -> None:
        """Wait for a change of the snapshot, `within_s` seconds at most."""
        seen = self.fleet.snapshot
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.watch.changed(0 if seen is None else seen.index)


class Dispatcher:
    """Sends images to workers. It owns neither the resolver nor the transport."""

    def __init__(
        self, resolver: Resolver, transport: Transport, config: ClientConfig, stats: Stats
    ) -> None:
        self._resolver = resolver
        self._transport = transport
        self._config = config
        self._stats = stats
        self._services: dict[str, _Service] = {}
        self._rng = random.Random()
        self._clock = asyncio.get_running_loop().time

    @property
    def lookups(self) -> int:
        """Polls made so far, for all services; may be read from another thread."""
        return sum(service.watch.polls for service in list(self._services.values()))

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
        try:
            async with asyncio.timeout_at(job.deadline):
                return await self._run(job, await load_image(image))
        except TimeoutError:
            last = job.last_error
            raise DeadlineExceeded(
                f"{job.reference}: no answer by the deadline, after {job.attempts} attempts; "
                f"{f'the last one failed: {last}' if last else 'give more time (timeout_s)'}"
            ) from last

    async def _run(self, job: Job, image: bytes) -> ClassifyAnswer:
        service = self._services.get(job.reference.model)
        if service is None or service.watch.view is None:
            service = await self._service(job.reference.model)
        tried = _NOBODY
        rounds = 0
        empty_until: float | None = None
        while True:
            now = self._clock()
            service.refresh()
            pick = service.fleet.pick(job.reference, tried=tried, now=now, rng=self._rng)
            if isinstance(pick, Pick):
                reply = await self._attempt(job, pick, image, left_s=job.deadline - now)
                if reply.answer is not None:
                    return reply.answer
                self._failed(job, reply.error)
                tried = tried | {pick.worker.id}
                empty_until = None
            elif pick is None:
                if empty_until is None:
                    empty_until = now + self._config.no_worker_s
                _check_served(service.fleet.snapshot, job, late=now >= empty_until)
                await service.changed(empty_until - now)
            else:
                if pick.until >= job.deadline:
                    raise TimeoutError
                jitter_s = self._config.routing.backoff_s(rounds, self._rng)
                await service.changed(max(0.0, pick.until - now) + jitter_s)
                tried = _NOBODY
                rounds += 1

    async def _attempt(self, job: Job, pick: Pick, image: bytes, *, left_s: float) -> Reply:
        job.attempts += 1
        job.worker = instance = pick.worker.instance
        self._stats.attempts += 1
        outcome, load, retry_after_s = Outcome.ABANDONED, None, None
        try:
            reply = await self._transport.classify(
                instance.address, str(job.reference), job.top, image, left_s=left_s
            )
            outcome, load = reply.outcome, reply.load
            if reply.error is not None:
                retry_after_s = reply.error.retry_after_s
            if outcome is not Outcome.REFUSED:
                self._stats.bytes_sent += len(image)
        except asyncio.CancelledError:
            # The deadline came: the worker was slow. Anything else is the caller's own wish.
            if self._clock() >= job.deadline:
                outcome = Outcome.FAILED
            raise
        finally:
            pick.release(
                outcome, now=self._clock(), rng=self._rng, load=load, retry_after_s=retry_after_s
            )
        return reply

    def _failed(self, job: Job, error: FingerpostError | None) -> None:
        """Note a failed attempt; raise its error where another worker would say the same."""
        if error is None:
            raise RuntimeError("an attempt ended with neither an answer nor an error")
        if not error.retryable:
            raise error
        job.last_error = error
        retries = self._stats.retries
        retries[error.code] = retries.get(error.code, 0) + 1

    async def _service(self, name: str) -> _Service:
        """The service's watch and table, once the first snapshot is there."""
        service = self._services.get(name)
        if service is None:
            service = self._services[name] = _Service(self._resolver.watch(name), self._config)
        await service.watch.ready(self._config.no_worker_s)
        return service


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
        labels = sorted({label for each in models for label in each.labels})
        raise UnknownModel(
            f"no worker of {name!r} serves {job.reference}; there are versions "
            f"{', '.join(versions) or 'none'} and labels {', '.join(labels) or 'none'}"
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
