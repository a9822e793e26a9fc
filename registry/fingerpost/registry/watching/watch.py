"""A long-running resolve: polls, keeps the last good view, and tells about changes."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Literal, Protocol, Self, TypeVar

import msgspec

from fingerpost.errors import FingerpostError, RegistryError, RegistryUnreachable
from fingerpost.registry.snapshot import Snapshot
from fingerpost.registry.watching.rules import WatchConfig, WatchRules
from fingerpost.registry.watching.self_preservation import ProbeResult, SelfPreservation

if TYPE_CHECKING:
    from fingerpost.registry.instance import Instance
    from fingerpost.registry.snapshot import Catalog

__all__ = ["Ask", "Listener", "Load", "Poll", "ServiceWatch", "Store", "View", "Watch"]

logger = logging.getLogger(__name__)


class View(Protocol):
    """What a watch publishes: `Snapshot` or `Catalog`, both msgspec structs."""

    @property
    def index(self) -> int:
        """The registry's index when this content was first seen, or more; it only grows."""
        ...

    @property
    def taken_at(self) -> float:
        """When it was last confirmed, in monotonic seconds."""
        ...

    def same_content(self, other: Self, /) -> bool:
        """Whether both say the same, whenever they were taken."""
        ...


V = TypeVar("V", bound=View)

# One poll: given an index and how many seconds it may be held, the view and the next index.
Poll = Callable[[int, float], Awaitable[tuple[V, int]]]

# What an earlier process stored, if anything; never raises.
Load = Callable[[], Awaitable[V | None]]

# Called after each change with the view before (None at first) and the one now; must not block.
Listener = Callable[[V | None, V], None]

# Asks a worker itself; never raises for what the worker does. `liveness.Liveness.ask` is one.
Ask = Callable[["Instance"], Awaitable[ProbeResult]]


class Watch(Generic[V]):
    """Polls in one background task from `start` to `aclose`; readers never wait for the network.

    An error is not an empty list: while polls fail, `view` stays the last good one, its age grows,
    and `error` says what is wrong. A change is published only when the content differs.

    Attributes:
        view: the last good view; None before the first.
        error: why the last poll failed; None if it succeeded.
        last_error: the last failure ever, for people who look afterwards.
        polls: polls begun; `errors` of them failed; `changes` of content were published.
        suspicions: how often a list was not believed (see `self_preservation`); for services only.
        probes: questions put to workers because of that.

    Args:
        poll: one poll; see `Poll`.
        name: what is watched, for logs and errors.
        load: reads what an earlier process stored, if that is kept. It is published only if the
            registry does not answer the first poll, or not within `stored_after_s`.
    """

    def __init__(
        self,
        poll: Poll[V],
        *,
        name: str,
        load: Load[V] | None = None,
        config: WatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._poll = poll
        self._name = name
        self._load = load
        self._first_failed = asyncio.Event()
        self._stored: asyncio.Task[None] | None = None
        self._config = config or WatchConfig()
        self._clock = clock
        self._rng = rng or random.Random()
        self._rules = WatchRules(self._config)
        self._changed = asyncio.Event()
        self._listeners: list[Listener[V]] = []
        self._task: asyncio.Task[None] | None = None
        self.view: V | None = None
        self.error: FingerpostError | None = None
        self.last_error: FingerpostError | None = None
        self.polls = 0
        self.errors = 0
        self.changes = 0
        self.suspicions = 0
        self.probes = 0

    @property
    def running(self) -> bool:
        """Whether it was started and not closed."""
        return self._task is not None

    def start(self) -> Self:
        """Begin to poll; needs a running loop. Calling it again does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch {self._name}")
            if self._load is not None and self.view is None:
                self._stored = asyncio.create_task(
                    self._start_from(self._load), name=f"stored view {self._name}"
                )
        return self

    async def aclose(self) -> None:
        """Stop polling; the last view stays readable.

        Of a watch that others share, use `Registry.release` instead.
        """
        tasks = [each for each in (self._task, self._stored) if each is not None]
        self._task = self._stored = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def listen(self, listener: Listener[V]) -> Callable[[], None]:
        """Call `listener(old, new)` after every change; returns what ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener) if listener in self._listeners else None

    async def ready(self, timeout_s: float) -> V:
        """The current view, waiting for the first one.

        Raises:
            RegistryError: the first poll failed and none succeeded within `timeout_s`; it is the
                poll's own error where there was one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self.changed(0)
        except TimeoutError:
            raise self.error or RegistryUnreachable(
                f"no answer about {self._name} within {timeout_s:g} s"
            ) from None

    async def changed(self, index: int) -> V:
        """Wait until the view's index differs from `index`, and return the view."""
        while self.view is None or self.view.index == index:
            await self._changed.wait()
        return self.view

    async def __aiter__(self) -> AsyncIterator[V]:
        index = 0
        while True:
            view = await self.changed(index)
            index = view.index
            yield view

    async def _run(self) -> None:
        while True:
            self.polls += 1
            try:
                async with asyncio.timeout(self._config.deadline_s):
                    view, index = await self._poll(self._rules.index, self._config.wait_s)
            except TimeoutError:
                delay_s = self._failed(
                    RegistryUnreachable(
                        f"{self._name}: no answer within {self._config.deadline_s:g} s"
                    )
                )
            except FingerpostError as error:
                delay_s = self._failed(error)
            except Exception as error:  # a bug in a poll must not end the watch in silence
                logger.exception("watch %s: unexpected error", self._name)
                delay_s = self._failed(RegistryError(f"{self._name}: {error!r}"))
            else:
                if self.error is not None:
                    logger.info("watch %s: answered again", self._name)
                    self.error = None
                self._take(view)
                delay_s = self._rules.answered(index, now=self._clock())
            await asyncio.sleep(delay_s)

    async def _start_from(self, load: Load[V]) -> None:
        """Publish what is stored, if the registry fails or is slow before it has answered."""
        try:
            async with asyncio.timeout(self._config.stored_after_s):
                await self._first_failed.wait()
        except TimeoutError:
            pass
        stored = await load() if self.view is None else None
        if self.view is not None or stored is None:
            return
        age_s = self._clock() - stored.taken_at
        logger.warning("watch %s: starting from what is on disk, %.0f s old", self._name, age_s)
        self._restore(stored)

    def _restore(self, stored: V) -> None:
        """Nothing was told yet, and this is what an earlier process knew."""
        self._publish(stored)

    def _failed(self, error: FingerpostError) -> float:
        self._first_failed.set()
        self.errors += 1
        if self.error is None:
            logger.warning("watch %s: %s", self._name, error)
        self.error = self.last_error = error
        return self._rules.failed(self._rng)

    def _take(self, view: V) -> None:
        """A poll succeeded; what it told may be judged before it is published."""
        self._publish(view)

    def _publish(self, view: V) -> None:
        old = self.view
        if old is not None and old.same_content(view):
            self.view = msgspec.structs.replace(view, index=old.index)  # type: ignore[type-var]
            return
        if old is not None and view.index <= old.index:
            # A registry that lost its memory counts from 1 again, and a worker that was dropped
            # between two polls is a change too: who waits with the old index must be woken.
            view = msgspec.structs.replace(view, index=old.index + 1)  # type: ignore[type-var]
        self.view = view
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()
        for listener in tuple(self._listeners):
            try:
                listener(old, view)
            except Exception:
                logger.exception("watch %s: a listener failed", self._name)


class Store(Protocol):
    """Where a service's watch puts its snapshots: a `SnapshotStore`."""

    def put(self, snapshot: Snapshot) -> None:
        """Take the newest snapshot, to be written soon. Never blocks, never raises."""
        ...

    async def load(self, service: str) -> Snapshot | None:
        """The last one written, by whichever process. Never raises."""
        ...

    async def catalog(self) -> Catalog | None:
        """The services that `load` has a snapshot of; None if none. Never raises."""
        ...

    async def aclose(self) -> None:
        """Write what still waits. The registry that was given the store does this at its end."""
        ...


class ServiceWatch(Watch[Snapshot]):
    """The watch of one service: it doubts lists that shrink, and can start from a stored snapshot.

    Args:
        poll: as for `Watch`.
        service: its name.
        ask: asks a worker itself, under suspicion (see `self_preservation`). None believes every
            list.
        store: where snapshots are kept across restarts, if anywhere. A stored one is published
            only if the registry does not answer the first poll; the first good poll is judged
            against it as against any other list.
    """

    def __init__(
        self,
        poll: Poll[Snapshot],
        *,
        service: str,
        name: str,
        ask: Ask | None = None,
        store: Store | None = None,
        config: WatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        load = None if store is None else functools.partial(store.load, service)
        super().__init__(poll, name=name, load=load, config=config, clock=clock, rng=rng)
        self._ask = ask
        self._store = store
        doubts = self._config.self_preservation if ask is not None else None
        self._self_preservation = SelfPreservation(doubts) if doubts is not None else None
        self._told: Snapshot | None = None
        self._asking: asyncio.Task[None] | None = None
        self._more_to_ask = asyncio.Event()

    def start(self) -> Self:
        """See `Watch.start`."""
        if self.running:
            return self
        super().start()
        if self._self_preservation is not None:
            self._self_preservation.restart(self._clock())
            self._keep_asking(self._self_preservation)
        return self

    async def aclose(self) -> None:
        """See `Watch.aclose`."""
        await super().aclose()
        task, self._asking = self._asking, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _take(self, view: Snapshot) -> None:
        self._told = view
        if self._self_preservation is not None:
            before = self._self_preservation.suspicious
            self._self_preservation.registry_said(view.instances, view.withdrawn, now=self._clock())
            if self._self_preservation.suspicious and not before:
                self.suspicions += 1
                logger.warning(
                    "watch %s: the registry lists %d instances and does not say why %d vanished; "
                    "asking the workers themselves",
                    self._name,
                    len(view.instances),
                    len(self._self_preservation.retained),
                )
            self._keep_asking(self._self_preservation)
        self._publish_used()
        if self._store is not None and self.view is not None:
            self._store.put(self.view)

    def _publish_used(self) -> None:
        """Publish what is in use now: what the registry told last, and who is retained."""
        view = self._told
        if view is None:
            return
        if self._self_preservation is not None:
            retained = self._self_preservation.retained
            view = msgspec.structs.replace(
                view,
                instances=self._self_preservation.instances,
                retained=retained,
                known=view.known or bool(retained),
            )
        self._publish(view)

    def _keep_asking(self, self_preservation: SelfPreservation) -> None:
        """Something was said: wake the task that asks, or start it where it is needed."""
        self._more_to_ask.set()
        idle = self._asking is None or self._asking.done()
        if self_preservation.suspicious and self._ask is not None and idle:
            self._asking = asyncio.create_task(
                self._ask_workers(self_preservation, self._ask), name=f"asking {self._name}"
            )

    async def _ask_workers(self, self_preservation: SelfPreservation, ask: Ask) -> None:
        """Ask those in doubt, again and again, until nobody is."""
        questions: dict[asyncio.Task[ProbeResult], Instance] = {}
        more: asyncio.Task[Literal[True]] | None = None
        try:
            while True:
                for instance in self_preservation.due(self._clock()):
                    self.probes += 1
                    questions[asyncio.create_task(_probe(ask, instance))] = instance
                due_at = self_preservation.next_due_at()
                if due_at is None:
                    break
                if more is None or more.done():
                    self._more_to_ask.clear()
                    more = asyncio.create_task(self._more_to_ask.wait())
                done, _ = await asyncio.wait(
                    {*questions, more},
                    timeout=max(0.0, due_at - self._clock()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for question in [each for each in questions if each in done]:
                    instance = questions.pop(question)
                    self_preservation.worker_said(instance, question.result(), now=self._clock())
                self._publish_used()
        finally:
            left = [*questions, *([more] if more is not None else [])]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        self._asking = None
        self._publish_used()
        logger.info("watch %s: the registry's list is not in doubt any more", self._name)
        # Doubt may have come back while the last questions were being ended.
        self._keep_asking(self_preservation)

    def _restore(self, stored: Snapshot) -> None:
        self._told = stored
        if self._self_preservation is not None:
            self._self_preservation.registry_said(stored.instances, (), now=self._clock())
        self._publish_used()


async def _probe(ask: Ask, instance: Instance) -> ProbeResult:
    try:
        return await ask(instance)
    except Exception:  # a bug must not end the asking; an unasked worker is a silent one
        logger.exception("asking %s: unexpected error", instance.id)
        return ProbeResult.UNRESPONSIVE
