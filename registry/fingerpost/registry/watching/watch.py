"""A long-running resolve: polls, keeps the last good view, and publishes changes."""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from fingerpost.basics.supervision import count_unexpected, supervise
from fingerpost.errors import FingerpostError, RegistryError, RegistryUnreachable
from fingerpost.registry.watching.rules import WatchConfig, WatchRules

__all__ = ["Listener", "Load", "Poll", "View", "Watch"]

logger = logging.getLogger(__name__)


class View(Protocol):
    """What a watch publishes: `Snapshot` or `Catalog`, both msgspec structs."""

    @property
    def index(self) -> int:
        """The registry's index when this content was first seen, or more; it only grows."""
        ...

    @property
    def taken_at(self) -> float:
        """When the registry last confirmed it, in monotonic seconds."""
        ...

    def same_content(self, other: Self, /) -> bool:
        """Whether both have the same content, whenever they were taken."""
        ...


V = TypeVar("V", bound=View)

# One poll: takes an index and how many seconds the registry may hold it; returns the view and the
# next index.
Poll = Callable[[int, float], Awaitable[tuple[V, int]]]

# Reads what an earlier process stored, or None; never raises.
Load = Callable[[], Awaitable[V | None]]

# Called after each change with the old view (None at first) and the new one; must not block.
Listener = Callable[[V | None, V], None]


class Watch(Generic[V]):
    """Polls in one background task from `start` to `aclose`; readers never wait for the network.

    An error is not an empty list: while polls fail, `view` stays the last good one, its age grows,
    and `error` has the reason. A change is published only when the content differs.

    Attributes:
        view: the last good view; None before the first.
        error: why the last poll failed; None if it succeeded.
        last_error: the latest failure since the start, also when polls succeed again.
        polls: how many polls were begun.
        errors: how many polls failed.
        changes: how many changes of content were published.
        suspicions: how often a list was not believed (see `self_preservation`); for services only.
        probes: how many probes of workers were begun because of that.

    Args:
        poll: one poll; see `Poll`.
        name: what is watched, for logs and errors.
        load: reads what an earlier process stored. It is published only if the registry does not
            answer the first poll, or not within `stored_after_s`.
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
                    supervise(functools.partial(self._start_from, self._load), "stored snapshot"),
                    name=f"stored view {self._name}",
                )
        return self

    async def aclose(self) -> None:
        """Stop polling; the last view stays readable.

        For a watch that others share, use `Registry.release` instead.
        """
        tasks = [each for each in (self._task, self._stored) if each is not None]
        self._task = self._stored = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def listen(self, listener: Listener[V]) -> Callable[[], None]:
        """Call `listener(old, new)` after every change; call the returned function to stop that."""
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
                self._answers_again()
                self._polled(view)
            except TimeoutError:
                delay_s = self._failed(
                    RegistryUnreachable(
                        f"{self._name}: no answer within {self._config.deadline_s:g} s"
                    )
                )
            except FingerpostError as error:
                delay_s = self._failed(error)
            except Exception as error:  # a bug must not end the watch silently
                count_unexpected("watch", error)
                delay_s = self._failed(RegistryError(f"{self._name}: {error!r}"))
            else:
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
        """Process what an earlier process stored, before any poll has succeeded."""
        self._publish(stored)

    def _failed(self, error: FingerpostError) -> float:
        self._first_failed.set()
        self.errors += 1
        if self.error is None:
            logger.warning("watch %s: %s", self._name, error)
        self.error = self.last_error = error
        return self._rules.failed(self._rng)

    def _answers_again(self) -> None:
        if self.error is not None:
            logger.info("watch %s: the registry answers again", self._name)
            self.error = None

    def _polled(self, view: V) -> None:
        """Process the view of a poll that succeeded; a subclass may change it before publishing."""
        self._publish(view)

    def _publish(self, view: V) -> None:
        old = self.view
        if old is not None and old.same_content(view):
            self.view = msgspec.structs.replace(view, index=old.index)  # type: ignore[type-var]
            return
        if old is not None and view.index <= old.index:
            # A registry that lost its memory counts from 1 again, and a worker that was dropped
            # between two polls is a change too: callers that wait with the old index must wake.
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
