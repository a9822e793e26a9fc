"""The requests that are under way while something breaks, each recorded with its attempts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from fingerpost.client import Client
from tests.faults.wait import until
from tests.worker.colours import encoded

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
    """Classifies small images without end: `concurrency` at a time, shared among the clients.

    Each of them waits `pause_s` between an answer and the next image, so that a machine of two
    cores is busy and not choked: a choked one would measure itself. An answer that names the wrong
    colour is a failure.
    """

    def __init__(
        self, clients: dict[str, Client], *, concurrency: int = 8, pause_s: float = 0.02
    ) -> None:
        self.clients = clients
        self.concurrency = concurrency
        self.calls: list[Call] = []
        self.attempts: list[Attempt] = []
        self._pause_s = pause_s
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> Self:
        names = list(self.clients)
        for name, client in self.clients.items():
            # The client tells of attempts by number only; where each one went is told here.
            client._open()
            transport = client._transport
            transport.classify = self._recorded(name, transport.classify)
        for number in range(self.concurrency):
            name = names[number % len(names)]
            self._tasks.append(asyncio.create_task(self._run(name, number), name=f"load {number}"))
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

    def latencies(self, since: float, before: float = float("inf")) -> list[float]:
        """Of the calls that began in that time, sorted."""
        return sorted(each.latency_s for each in self.calls if since <= each.began < before)

    def p99_ms(self, since: float, before: float = float("inf")) -> float:
        found = self.latencies(since, before)
        assert len(found) >= 100, f"{len(found)} calls are too few for a 99th percentile"
        return found[int(len(found) * 0.99)] * 1000

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

    def _recorded(self, name: str, classify: Callable[..., Awaitable]) -> Callable[..., Awaitable]:
        async def recorded(address: str, *arguments, **named):
            began = time.monotonic()
            outcome = "cancelled"
            try:
                reply = await classify(address, *arguments, **named)
                outcome = reply.outcome.name
            finally:
                self.attempts.append(Attempt(name, address, began, time.monotonic(), outcome))
            return reply

        return recorded

    async def _run(self, name: str, number: int) -> None:
        client = self.clients[name]
        while not self._ending:
            colour, image = _IMAGES[number % len(_IMAGES)]
            number += 1
            began = time.monotonic()
            worker, attempts, error = "", 0, ""
            try:
                result = await client.classify(image, SERVICE)
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            else:
                worker, attempts = result.worker, result.attempts
                error = "" if result.label == colour else f"{colour} was called {result.label}"
            self.calls.append(Call(name, began, time.monotonic(), worker, attempts, error))
            await asyncio.sleep(self._pause_s)
