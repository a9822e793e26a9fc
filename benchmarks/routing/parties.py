"""Who takes part in a simulation, and what each of them knows."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from fingerpost.client.routing import Budget, Fleet, Pick, RoutingConfig, make_policy
from fingerpost.registry import LoadReport, WorkerState

__all__ = ["NOBODY", "Client", "Request", "Worker"]

NOBODY: Final[frozenset[str]] = frozenset()


class Request:
    """An image on its way."""

    __slots__ = (
        *("attempts", "awaits", "begun", "born", "client", "done", "mb"),
        *("pick", "queue", "started", "tried", "work"),
    )

    def __init__(self, client: Client, born: float, mb: float, work: float) -> None:
        self.client = client
        self.born = born
        self.mb = mb
        self.work = work
        self.started = 0.0
        self.queue = 1.0
        self.begun = False
        self.awaits = self.attempts = 0
        self.tried: frozenset[str] = NOBODY
        self.pick: Pick | None = None
        self.done = False


class Client:
    """What one client keeps, as `Dispatcher`, `Service` and `Prober` do."""

    __slots__ = ("asked", "budget", "fleet", "mb", "reported_at", "seconds", "timer")

    def __init__(self, config: RoutingConfig) -> None:
        self.fleet = Fleet(make_policy(config), config)
        self.budget = Budget(config)
        self.timer = False
        self.asked: set[str] = set()
        self.reported_at = -inf
        self.seconds = self.mb = 0.0


class Worker:
    """A queue, and those of its images that are worked on."""

    __slots__ = (
        *("busy", "factor", "latency", "mb", "mb_per_s", "mode"),
        *("queue", "rif", "sampled_at", "seq", "slots", "speed"),
    )

    def __init__(self, speed: float, slots: int, mb_per_s: float) -> None:
        self.speed = speed
        self.slots = slots
        self.mb_per_s = mb_per_s
        self.factor = 1.0
        self.mode = "up"
        self.busy = self.rif = self.seq = 0
        self.latency = self.mb = self.sampled_at = 0.0
        self.queue: deque[Request] = deque()

    def report(self) -> LoadReport:
        """What it says of itself now."""
        self.seq += 1
        base = self.latency / self.mb if self.mb else 0.0
        return LoadReport(
            rif=self.rif,
            slots=self.slots,
            state=WorkerState.READY,
            boot_id=1,
            seq=self.seq,
            latency_per_cost_s=base * max(1.0, self.rif / self.slots),
        )
