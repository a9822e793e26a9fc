"""All workers of one service as one client sees them: whom to pick, and what came of it."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fingerpost.client.routing.worker import Outcome, Worker

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import Policy
    from fingerpost.registry import LoadReport, ModelReference, Snapshot

__all__ = ["Fleet", "Pause", "Pick"]


class Pick:
    """One request placed on one worker; `release` it exactly once, whatever happens."""

    __slots__ = ("_fleet", "_released", "at", "trial", "worker")

    def __init__(self, fleet: Fleet, worker: Worker, at: float, *, trial: bool) -> None:
        self.worker = worker
        self.at = at
        self.trial = trial
        self._fleet = fleet
        self._released = False

    def release(
        self,
        outcome: Outcome,
        *,
        now: float,
        rng: Random,
        load: LoadReport | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """Tell how it ended, with the load report that came along, if any.

        Raises:
            RuntimeError: it was released before, which would leave the count wrong for good.
        """
        if self._released:
            raise RuntimeError(f"a pick of worker {self.worker.id} was released twice")
        self._released = True
        changed = self.worker.finished(
            outcome,
            picked_at=self.at,
            trial=self.trial,
            now=now,
            rng=rng,
            retry_after_s=retry_after_s,
        )
        if load is not None and self.worker.reported(load, now):
            changed = True
        if changed:
            self._fleet.regroup()


class Pause:
    """Nobody to pick before `until`: all were tried (then it is now), or all are overloaded."""

    __slots__ = ("until",)

    def __init__(self, until: float) -> None:
        self.until = until


class _Group:
    """The workers that serve one reference, and those of them that are usable before `until`."""

    __slots__ = ("until", "usable", "workers")

    def __init__(self, workers: Sequence[Worker], now: float) -> None:
        self.workers = workers
        self.usable: list[Worker] = []
        self.until = inf
        for worker in workers:
            at = worker.usable_from()
            if at <= now:
                self.usable.append(worker)
            else:
                self.until = min(self.until, at)


class Fleet:
    """The routing table of one service.

    A pick takes constant time, because the usable workers are kept as a list that is made anew
    only after a change: a snapshot, an ejection and its end, a trial, an overload, draining.
    Not safe for several threads.
    """

    def __init__(self, policy: Policy, config: RoutingConfig) -> None:
        self._policy = policy
        self._config = config
        self._workers: dict[str, Worker] = {}
        self._groups: dict[ModelReference, _Group] = {}
        self.snapshot: Snapshot | None = None

    @property
    def workers(self) -> tuple[Worker, ...]:
        """All workers of the last snapshot, in its order."""
        return tuple(self._workers.values())

    def update(self, snapshot: Snapshot) -> None:
        """Take a snapshot. Workers that stay keep their record; a new id or boot id has none.

        Picks of workers that vanished stay valid: the requests go on, and are released as usual.
        """
        workers = {}
        for instance in snapshot.instances:
            worker = self._workers.get(instance.id)
            if worker is None or not worker.renew(instance):
                worker = Worker(instance, self._config)
            workers[instance.id] = worker
        self._workers = workers
        self.snapshot = snapshot
        self.regroup()

    def regroup(self) -> None:
        """Who is usable may have changed."""
        self._groups.clear()

    def pick(
        self, reference: ModelReference, *, tried: Collection[str], now: float, rng: Random
    ) -> Pick | Pause | None:
        """Place one request, passing over the worker ids in `tried` while there are others.

        Returns a `Pick`; a `Pause` where another attempt should wait (call again without `tried`
        then); None where no worker serves `reference`. Nothing is ever left without a worker by
        ejection alone: if all are ejected or draining, all are picked from ('panic mode').
        """
        group = self._groups.get(reference)
        if group is None or now >= group.until:
            group = self._group(reference, now)
            if group is None:
                return None
        pool: Sequence[Worker] = group.usable
        if not pool:
            busy_until = [each.busy_until for each in group.workers if each.busy_until > now]
            if busy_until:
                return Pause(min(busy_until))
            pool = group.workers
        if tried:
            pool = [worker for worker in pool if worker.id not in tried]
            if not pool:
                return Pause(now)
        worker = self._policy.pick(pool, now, rng)
        trial = worker.dispatched(now)
        if trial:
            self.regroup()
        return Pick(self, worker, now, trial=trial)

    def _group(self, reference: ModelReference, now: float) -> _Group | None:
        if self.snapshot is None:
            return None
        workers = [self._workers[each.id] for each in self.snapshot.matching(reference)]
        if not workers:
            return None
        group = self._groups[reference] = _Group(workers, now)
        return group
