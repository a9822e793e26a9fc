"""Records which workers were listed when: by Consul, by a proxy, and by a watch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Self

import aiohttp

from fingerpost.registry import Snapshot, Watch
from tests.faults.load import SERVICE
from tests.support.waiting import until

__all__ = ["AtConsul", "AtProxy", "InWatch", "ObservedLists"]


class ObservedLists:
    """Every list that was observed: its time, and the ids or addresses on it."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, frozenset[str]]] = []
        self.errors: list[tuple[float, str]] = []

    @property
    def now(self) -> frozenset[str]:
        return self.seen[-1][1] if self.seen else frozenset()

    @property
    def empty(self) -> int:
        """How often the list was empty after it had not been."""
        full = False
        count = 0
        for _, names in self.seen:
            count += full and not names
            full = full or bool(names)
        return count

    def ever(self, name: str) -> bool:
        return any(name in names for _, names in self.seen)

    async def until(self, condition: Callable[[frozenset[str]], bool], what: str, **wait) -> float:
        """Wait until a list satisfies the condition; return when it was seen."""
        await until(
            lambda: bool(self.seen) and condition(self.now), f"{what} {self.errors[-1:]}", **wait
        )
        return self.seen[-1][0]

    async def until_without(self, name: str) -> float:
        """Wait until a list lacks this name; return when it was seen."""
        return await self.until(lambda names: name not in names, f"{name} is off the list")

    def lengths(self, since: float) -> str:
        """How long the list was from then on, for a note."""
        return ", ".join(
            f"{len(names)} at {at - since:+.2f} s" for at, names in self.seen if at >= since
        )

    def saw(self, names: frozenset[str]) -> None:
        if not self.seen or names != self.seen[-1][1]:
            self.seen.append((time.monotonic(), names))


class _Poller(ObservedLists):
    """Held lookups one after the other, from `async with` on."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=type(self).__name__)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        limits = aiohttp.ClientTimeout(total=15.0)
        async with aiohttp.ClientSession(timeout=limits) as session:
            index = "0"
            while True:
                try:
                    index = await self._poll(session, index)
                except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                    self.errors.append((time.monotonic(), f"{type(error).__name__}: {error}"))
                    index = "0"
                    await asyncio.sleep(0.05)

    async def _poll(self, session: aiohttp.ClientSession, index: str) -> str:
        raise NotImplementedError


class AtConsul(_Poller):
    """The passing list of one agent, by id: what Consul itself says."""

    async def _poll(self, session: aiohttp.ClientSession, index: str) -> str:
        url = f"{self._url}/v1/health/service/{SERVICE}?passing&stale&index={index}&wait=5s"
        async with session.get(url) as answer:
            if answer.status != 200:
                raise ValueError(f"HTTP {answer.status}: {await answer.text()}")
            entries: list[dict[str, Any]] = await answer.json()
            self.saw(frozenset(each["Service"]["ID"] for each in entries))
            return answer.headers["X-Consul-Index"]


class AtProxy(_Poller):
    """What one proxy answers to held lookups, by id; 503 is an empty list."""

    async def _poll(self, session: aiohttp.ClientSession, index: str) -> str:
        held = f"?index={index}&wait=5s" if index != "0" else ""
        async with session.get(f"{self._url}/v1/resolve/{SERVICE}{held}") as answer:
            body: dict[str, Any] = await answer.json()
            if answer.status not in (200, 503):
                raise ValueError(f"HTTP {answer.status}: {body}")
            self.saw(frozenset(each["id"] for each in body.get("instances", ())))
            return answer.headers["Fingerpost-Index"]


class InWatch(ObservedLists):
    """What a watch of `fingerpost.registry` publishes, by id."""

    def __init__(self, watch: Watch[Snapshot]) -> None:
        super().__init__()
        self.watch = watch
        if watch.view is not None:
            self._published(None, watch.view)
        watch.listen(self._published)

    def _published(self, _: Snapshot | None, view: Snapshot) -> None:
        self.saw(frozenset(each.id for each in view.instances))
