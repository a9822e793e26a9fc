"""The requests that are under way while something breaks, each recorded with its attempts."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from fingerpost.client import Client, RetryConfig
from fingerpost.registry.instance import split_target
from tests.support.colours import encoded
from tests.support.optional import not_none
from tests.support.waiting import until

__all__ = ["SERVICE", "Attempt", "Call", "Load"]

SERVICE = "colours"

_BAD = ("REFUSED", "FAILED", "cancelled")
_IMAGES = tuple((colour, encoded(colour)) for colour in ("red", "green", "blue"))


@dataclass(frozen=True, slots=True)
class Call:
    """One image, from the call to the answer; times in monotonic seconds."""

    client: str
    began: float
    ended: float
    worker: str
    attempts: int
    error: str

    @property
    def latency_s(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that a client sent to one worker, or tried to."""

    client: str
    address: str
    began: float
    ended: float
    outcome: str


class Load:
    """Classifies small images without end. An answer that names the wrong colour is a failure.

    Args:
        clients: by name; they take turns, and are closed in the end.
        concurrency: so many are under way at a time (a closed loop).
        pause_s: each of them waits so long between an answer and the next image, so that a
            machine of two cores is busy and not choked: a choked one would measure itself.
        rate_per_s: instead of these two, so many come a second at random, whether the earlier
            ones were answered or not (an open loop).
        timeout_s: each image's deadline.
    """

    def __init__(
        self,
        clients: dict[str, Client],
        *,
        concurrency: int = 8,
        pause_s: float = 0.02,
        rate_per_s: float | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        self.clients = clients
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []
        self.timeout_s = timeout_s
        self._concurrency = concurrency
        self._pause_s = pause_s
        self._rate_per_s = rate_per_s
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> Self:
        names = list(self.clients)
        for name, client in self.clients.items():
            # A result has only the number of attempts; where each one went is recorded here.
            client._open()
            transport = not_none(client._transport)
            transport.classify = self._recorded(name, transport.classify)
        if self._rate_per_s is None:
            runs = [self._run(names[n % len(names)], n) for n in range(self._concurrency)]
        else:
            runs = [self._arrivals(names, self._rate_per_s)]
        self._tasks = [asyncio.create_task(run, name="load") for run in runs]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for client in self.clients.values():
            await client.aclose()

    async def settle(self, addresses: set[str], *, calls: int = 50) -> None:
        """Wait until every client has sent to each of these addresses, and to no other of late."""

        def settled() -> bool:
            for name in self.clients:
                recent = [each for each in self.attempts[-600:] if each.client == name][-calls:]
                if len(recent) < calls or {each.address for each in recent} != addresses:
                    return False
            return True

        await until(settled, f"every client uses {sorted(addresses)}")

    async def used(self, address: str, client: str | None = None, *, since: float = 0.0) -> None:
        """Wait until a client, or anyone, has sent to this address."""
        await until(lambda: self.sent_to(address, since, client), f"{address} is used")

    @property
    def failed(self) -> list[Call]:
        return [each for each in self.calls if each.error]

    @property
    def errors(self) -> dict[str, int]:
        return dict(Counter(each.error for each in self.failed))

    @property
    def retries(self) -> dict[str, int]:
        """Attempts that were followed by another, by cause, as the clients' metrics count them."""
        counts: Counter[str] = Counter()
        for client in self.clients.values():
            counts.update(client.stats.retries)
        return dict(counts)

    @property
    def budget_used(self) -> float:
        """The largest part of its budget for retries that a client used up in `budget_ttl_s`."""
        config = RetryConfig()
        most = 0.0
        for name in self.clients:
            calls = [each for each in self.calls if each.client == name]
            for end in (each.ended for each in calls if each.attempts > 1):
                recent = [each for each in calls if end - config.budget_ttl_s < each.ended <= end]
                allowed = (
                    config.budget_share * len(recent)
                    + config.budget_min_per_s * config.budget_ttl_s
                )
                most = max(most, sum(max(0, each.attempts - 1) for each in recent) / allowed)
        return most

    def latencies(self, since: float, before: float = float("inf")) -> list[float]:
        """Of the calls that began in that time, sorted."""
        return sorted(each.latency_s for each in self.calls if since <= each.began < before)

    def p99_ms(self, since: float, before: float = float("inf")) -> float:
        found = self.latencies(since, before)
        assert len(found) >= 100, f"{len(found)} calls are too few for a 99th percentile"
        return found[int(len(found) * 0.99)] * 1000

    @property
    def p999_s(self) -> float:
        """Of all calls."""
        found = self.latencies(0.0)
        assert len(found) >= 1000, f"{len(found)} calls are too few for p99.9"
        return found[int(len(found) * 0.999)]

    def share(self, worker: str, since: float, before: float = float("inf")) -> float:
        """The part that this worker answered of the images sent in that time."""
        answered = Counter(each.worker for each in self.calls if since <= each.began < before)
        return answered[worker] / max(1, answered.total())

    def sent_to(self, address: str, since: float = 0.0, client: str | None = None) -> list[Attempt]:
        """The attempts at an address that began since then, in the order of their beginning."""
        found = [
            each
            for each in self.attempts
            if each.address == address
            and each.began >= since
            and (client is None or each.client == client)
        ]
        return sorted(found, key=lambda each: each.began)

    def after_the_first_failure(
        self, address: str, since: float, *, outcomes: tuple[str, ...] = _BAD
    ) -> list[float]:
        """Seconds between a client's first failed attempt and each one that it began after it."""
        late = []
        for client in self.clients:
            sent = self.sent_to(address, since - 5.0, client)
            failures = [
                each.ended for each in sent if each.ended >= since and each.outcome in outcomes
            ]
            if failures:
                first = min(failures)
                late += [each.began - first for each in sent if each.began > first]
        return sorted(late)

    def _recorded(self, name: str, classify: Callable[..., Any]) -> Callable[..., Any]:
        async def recorded(target: str, *arguments, **named):
            began = time.monotonic()
            outcome = "cancelled"
            address, _ = split_target(target)
            try:
                reply = await classify(target, *arguments, **named)
                outcome = reply.outcome.name
            finally:
                self.attempts.append(Attempt(name, address, began, time.monotonic(), outcome))
            return reply

        return recorded

    async def _run(self, name: str, number: int) -> None:
        while not self._ending:
            await self._classify(name, number)
            number += 1
            await asyncio.sleep(self._pause_s)

    async def _arrivals(self, names: list[str], rate_per_s: float) -> None:
        rng = random.Random(1)
        number = 0
        at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while not self._ending:
                at += rng.expovariate(rate_per_s)
                await asyncio.sleep(at - time.monotonic())
                group.create_task(self._classify(names[number % len(names)], number))
                number += 1

    async def _classify(self, name: str, number: int) -> None:
        client = self.clients[name]
        colour, image = _IMAGES[number % len(_IMAGES)]
        began = time.monotonic()
        worker, attempts, error = "", 0, ""
        try:
            result = await client.classify(image, SERVICE, timeout_s=self.timeout_s)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
        else:
            worker, attempts = result.worker, result.attempts
            error = "" if result.label == colour else f"{colour} was called {result.label}"
        self.calls.append(Call(name, began, time.monotonic(), worker, attempts, error))
