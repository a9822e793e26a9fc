"""A long-running resolve: polls, keeps the last good view, and tells about changes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from fingerpost.registry.errors import FingerpostError, RegistryError, RegistryUnreachable
from fingerpost.registry.watch_rules import WatchConfig, WatchRules

__all__ = ["Poll", "View", "Watch"]

logger = logging.getLogger(__name__)


class View(Protocol):
    """What a watch publishes: `Snapshot` or `Catalog`, both msgspec structs."""

    @property
    def index(self) -> int:
        """The registry's index when this content was first seen."""

    @property
    def taken_at(self) -> float:
        """When it was last confirmed, in monotonic seconds."""

    def same_content(self, other: Self, /) -> bool:
        """Whether both say the same, whenever they were taken."""


V = TypeVar("V", bound=View)

# One poll: given an index and how many seconds it may be held, the view and the next index.
Poll = Callable[[int, float], Awaitable[tuple[V, int]]]


class Watch(Generic[V]):
    """Polls in one background task from `start` to `aclose`; readers never wait for the network.

    An error is not an empty list: while polls fail, `view` stays the last good one, its age grows,
    and `error` says what is wrong. A view is published only when its content changed.
    """

    def __init__(
        self,
        poll: Poll[V],
        *,
        name: str,
        config: WatchConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._poll = poll
        self._name = name
        self._config = config or WatchConfig()
        self._clock = clock
        self._rng = rng or random.Random()
        self._rules = WatchRules(self._config)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.view: V | None = None
        self.error: FingerpostError | None = None
        self.polls = 0
        self.errors = 0
        self.changes = 0

    def start(self) -> Self:
        """Begin to poll; needs a running loop. Calling it again does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"watch {self._name}")
        return self

    async def aclose(self) -> None:
        """Stop polling; the last view stays readable."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

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
                self._publish(view)
                delay_s = self._rules.answered(index, now=self._clock())
            await asyncio.sleep(delay_s)

    def _failed(self, error: FingerpostError) -> float:
        self.errors += 1
        if self.error is None:
            logger.warning("watch %s: %s", self._name, error)
        self.error = error
        return self._rules.failed(self._rng)

    def _publish(self, view: V) -> None:
        if self.error is not None:
            logger.info("watch %s: answered again", self._name)
            self.error = None
        old = self.view
        if old is not None and old.same_content(view):
            self.view = msgspec.structs.replace(old, taken_at=view.taken_at)  # type: ignore[type-var]
            return
        if old is not None and old.index == view.index:
            # A registry that lost its memory may count up to the same index with other content.
            view = msgspec.structs.replace(view, index=view.index + 1)  # type: ignore[type-var]
        self.view = view
        self.changes += 1
        self._changed.set()
        self._changed = asyncio.Event()
