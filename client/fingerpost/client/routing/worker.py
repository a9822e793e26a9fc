"""What one client knows of one worker, and whether it may be picked."""

from __future__ import annotations

import enum
from math import inf
from typing import TYPE_CHECKING

from fingerpost.registry.load import WorkerState

if TYPE_CHECKING:
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.registry import Instance, LoadReport

__all__ = ["Outcome", "Worker"]


class Outcome(enum.Enum):
    """How an attempt ended, as far as it says something about the worker."""

    ANSWERED = enum.auto()  # it works, even where it refused the image
    REFUSED = enum.auto()  # no connection could be made
    FAILED = enum.auto()  # reset, silent for too long, a 5xx or a senseless answer
    OVERLOADED = enum.auto()  # hot, not failed
    DRAINING = enum.auto()
    ABANDONED = enum.auto()  # the caller gave up: nothing is known


class Worker:
    """A `Candidate` with its record of failures.

    ::

        usable --REFUSED, or the 5th FAILED in a row--> resting 1 s --time--> half open
        half open: one request is the trial; the others see a worker that is not usable
        trial --ANSWERED--> usable      --REFUSED, FAILED--> resting, twice as long, 30 s at most
        any --DRAINING, or a report that says so--> resting 10 s --time--> half open
        any --OVERLOADED--> busy until Retry-After --time--> as before; no trial, no record

    What was picked before the worker began to rest says nothing about it afterwards: sixteen
    requests that die together are one failure, and a late success does not end the rest.
    """

    __slots__ = (
        "_config",
        "_ejections",
        "_failures",
        "_on_trial",
        "_rested_at",
        "_rests_until",
        "busy_until",
        "id",
        "in_flight",
        "instance",
        "load",
        "load_at",
        "weight",
    )

    def __init__(self, instance: Instance, config: RoutingConfig) -> None:
        self.instance = instance
        self.id = instance.id
        self.weight = instance.weight
        self.in_flight = 0
        self.load: LoadReport | None = None
        self.load_at = 0.0
        self.busy_until = -inf
        self._config = config
        self._forget()

    def _forget(self) -> None:
        """Begin without a record."""
        self._failures = 0
        self._ejections = 0
        self._rested_at = -inf
        self._rests_until = -inf
        self._on_trial = False

    def renew(self, instance: Instance) -> bool:
        """Take what the registry says now; False where that is another process (see `Fleet`)."""
        old = self.instance
        if (old.boot_id, old.address) != (instance.boot_id, instance.address):
            return False
        self.instance = instance
        self.weight = instance.weight
        return True

    def usable_from(self) -> float:
        """From when it may be picked, in monotonic seconds; infinite while its trial is out."""
        return inf if self._on_trial else max(self._rests_until, self.busy_until)

    def dispatched(self, now: float) -> bool:
        """Count a request; True where it is the trial of a worker that has rested."""
        self.in_flight += 1
        if self._rests_until == -inf or now < self._rests_until or self._on_trial:
            return False
        self._on_trial = True
        return True

    def finished(
        self,
        outcome: Outcome,
        *,
        picked_at: float,
        trial: bool,
        now: float,
        rng: Random,
        retry_after_s: float | None,
    ) -> bool:
        """A dispatched request ended; True where `usable_from` may have changed."""
        self.in_flight -= 1
        if trial:
            self._on_trial = False
        if outcome is Outcome.OVERLOADED:
            config = self._config
            wait_s = config.busy_s if retry_after_s is None else retry_after_s
            self.busy_until = now + min(max(0.0, wait_s), config.busy_cap_s)
        if outcome is Outcome.ABANDONED or picked_at <= self._rested_at:
            return trial or outcome is Outcome.OVERLOADED
        if outcome is Outcome.ANSWERED or outcome is Outcome.OVERLOADED:
            return self._succeeded() or outcome is Outcome.OVERLOADED
        if outcome is Outcome.DRAINING:
            self._rest(now, self._config.drain_s)
            return True
        return self._failed(outcome, now=now, trial=trial, rng=rng)

    def reported(self, load: LoadReport, now: float) -> bool:
        """Take a load report; True where `usable_from` may have changed."""
        old = self.load
        restarted = old is not None and old.boot_id != load.boot_id
        if old is not None and not restarted and load.seq <= old.seq:
            return False
        self.load = load
        self.load_at = now
        if restarted:
            self._forget()
        if load.state is WorkerState.READY:
            return restarted
        self._rest(now, self._config.drain_s)
        return True

    def _succeeded(self) -> bool:
        had_rested = self._rests_until > -inf
        self._failures = 0
        if had_rested:
            self._forget()
        return had_rested

    def _failed(self, outcome: Outcome, *, now: float, trial: bool, rng: Random) -> bool:
        self._failures += 1
        at_once = outcome is Outcome.REFUSED or trial
        if not at_once and self._failures < self._config.failures_in_a_row:
            return False
        if now < self._rests_until:
            return False  # picked in panic mode while it rested: it is known to fail
        self._rest(now, self._config.eject_s(self._ejections, rng))
        self._ejections += 1
        return True

    def _rest(self, now: float, seconds: float) -> None:
        self._rested_at = now
        self._rests_until = now + seconds
