"""When a worker is left out, and when it may prove itself again."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.outcome import Outcome
from fingerpost.registry.backoff import Backoff

if TYPE_CHECKING:
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig

__all__ = ["Ejection"]

_JITTER: Final = (0.75, 1.25)


class Ejection:
    """One worker's record of failures.

    ::

        usable --REFUSED--> resting 1 s
        usable --5 FAILED in a row, or under 80 % of 5 or more succeeded in 30 s--> resting 5 s
        usable --OVERLOADED--> busy until Retry-After; no trial, no record
        any    --DRAINING--> resting 10 s
        resting --time--> half open: one request is the trial, the others see it as unusable
        trial  --ANSWERED, OVERLOADED--> usable, the record cleared
        trial  --REFUSED, FAILED--> resting, twice as long: 30 s at most, or 300 s

    What was picked before the worker began to rest says nothing about it afterwards: sixteen
    requests that die together are one failure, and a late success does not end the rest.
    The first rest is exact; later ones vary by a quarter, so that clients do not return in step.

    Attributes:
        busy_until: overloaded until then.
        failing: it rests because of failures. That counts towards panic mode; a refused
            connection and draining do not: they are certain, and their cause is the worker's.
    """

    __slots__ = (
        "_bad",
        "_config",
        "_ejections",
        "_good",
        "_in_a_row",
        "_on_trial",
        "_rested_at",
        "_rests_until",
        "_window_from",
        "busy_until",
        "failing",
    )

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self.busy_until = -inf
        self.clear()

    def clear(self) -> None:
        """Begin without a record."""
        self._in_a_row = 0
        self._ejections = 0
        self._rested_at = -inf
        self._rests_until = -inf
        self._on_trial = False
        self.failing = False
        self._forget_window(-inf)

    def require_trial(self, now: float) -> None:
        """Let one request in first, as after a rest: it is new."""
        self._rests_until = now

    def usable_from(self) -> float:
        """From when it may be picked, in monotonic seconds; infinite while its trial is out."""
        return inf if self._on_trial else max(self._rests_until, self.busy_until)

    def dispatched(self, now: float) -> bool:
        """A request is sent; True where it is the trial of a worker that has rested."""
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
        config = self._config
        if trial:
            self._on_trial = False
        overloaded = outcome is Outcome.OVERLOADED
        if overloaded:
            wait_s = config.busy_s if retry_after_s is None else retry_after_s
            self.busy_until = now + min(max(0.0, wait_s), config.busy_cap_s)
        if outcome is Outcome.ABANDONED or picked_at <= self._rested_at:
            return trial or overloaded
        if outcome is Outcome.DRAINING:
            self.drain(now)
            return True
        if overloaded or outcome is Outcome.ANSWERED:
            return self._succeeded(now) or overloaded
        return self._failed(refused=outcome is Outcome.REFUSED, trial=trial, now=now, rng=rng)

    def drain(self, now: float) -> None:
        """It said that it is leaving."""
        self._rest(now, self._config.drain_s)

    def _succeeded(self, now: float) -> bool:
        had_rested = self._rests_until > -inf
        if had_rested:
            self.clear()
        self._roll(now)
        self._good[0] += 1
        self._in_a_row = 0
        return had_rested

    def _failed(self, *, refused: bool, trial: bool, now: float, rng: Random) -> bool:
        config = self._config
        self._roll(now)
        self._bad[0] += 1
        self._in_a_row += 1
        if now < self._rests_until:
            return False  # picked in panic mode while it rested: it is known to fail
        if not (refused or trial or self._in_a_row >= config.failures_in_a_row):
            bad, seen = sum(self._bad), sum(self._bad) + sum(self._good)
            if seen < config.window_requests or seen - bad >= config.success_share * seen:
                return False
        base_s, cap_s = config.eject_base_s, config.eject_cap_s
        if refused:
            base_s, cap_s = config.refused_base_s, config.refused_cap_s
        rest_s = base_s
        if self._ejections:  # the cap holds for the rest with its jitter
            backoff = Backoff(base_s=base_s, cap_s=inf, jitter=_JITTER)
            rest_s = backoff.delay_s(self._ejections, rng)
        self._rest(now, min(rest_s, cap_s))
        self._ejections += 1
        self.failing = not refused
        self._forget_window(now)
        return True

    def _rest(self, now: float, seconds: float) -> None:
        self._rested_at = now
        self._rests_until = now + seconds
        self.failing = False

    def _forget_window(self, now: float) -> None:
        self._good, self._bad = [0, 0, 0], [0, 0, 0]
        self._window_from = now

    def _roll(self, now: float) -> None:
        """Thirds of the window, newest first; so it holds between two thirds and all of it."""
        third_s = self._config.window_s / 3
        if now - self._window_from >= 3 * third_s:
            self._forget_window(now)
        while now - self._window_from >= third_s:
            self._good = [0, *self._good[:2]]
            self._bad = [0, *self._bad[:2]]
            self._window_from += third_s
