"""When a failing worker is left out, and when it is tried again."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.basics.backoff import Backoff
from fingerpost.client.routing.outcome import Outcome

if TYPE_CHECKING:
    from random import Random

    from fingerpost.client.routing.config import EjectionConfig

__all__ = ["Ejection"]

_JITTER: Final = (0.75, 1.25)


class Ejection:
    """One worker's circuit breaker (Envoy: outlier detection), with the default times.

    ::

        usable  --REFUSED--> ejected for 1 s
        usable  --5 FAILED in a row, or under 80 % of 5 or more succeeded in 30 s--> ejected for 5 s
        usable  --OVERLOADED--> unusable until Retry-After; no trial, nothing recorded
        any     --DRAINING--> ejected for 10 s
        any     --STALE--> ejected for 30 s, or until its entry in the registry changes
        ejected --time--> half open: one request is the trial, for others it is unusable
        trial   --ANSWERED, OVERLOADED--> usable, the record cleared
        trial   --REFUSED, FAILED--> ejected for twice as long, up to 30 s or 300 s

    A request that was picked before the ejection does not count after it: sixteen requests that
    fail together are one failure, and a late success does not end an ejection. The first ejection
    has the exact length; later ones vary by a quarter, so that clients do not return in step.

    Attributes:
        overloaded_until: until when it is overloaded, in monotonic seconds.
        stale: it is ejected because it is not what its entry says.
        failing: it is ejected because of failures. This counts towards panic mode. A refused
            connection and draining do not: they are certain, and their cause is the worker.
    """

    __slots__ = (
        "_bad",
        "_config",
        "_ejected_at",
        "_ejected_until",
        "_ejections",
        "_good",
        "_in_a_row",
        "_on_trial",
        "_window_from",
        "failing",
        "overloaded_until",
        "stale",
    )

    def __init__(self, config: EjectionConfig) -> None:
        self._config = config
        self.overloaded_until = -inf
        self.clear()

    def clear(self) -> None:
        """Forget all failures and ejections."""
        self._in_a_row = 0
        self._ejections = 0
        self._ejected_at = -inf
        self._ejected_until = -inf
        self._on_trial = False
        self.failing = self.stale = False
        self._forget_window(-inf)

    def require_trial(self, now: float) -> None:
        """Begin half open, as after an ejection: for a new worker."""
        self._ejected_until = now

    def usable_from(self) -> float:
        """From when it may be picked, in monotonic seconds; infinite during its trial."""
        return inf if self._on_trial else max(self._ejected_until, self.overloaded_until)

    def dispatched(self, now: float) -> bool:
        """Record that a request is sent; True if it is the trial that ends an ejection."""
        if self._ejected_until == -inf or now < self._ejected_until or self._on_trial:
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
        """Record the end of a request; True if `usable_from` may have changed.

        See `Pick.release` for the arguments.
        """
        config = self._config
        if trial:
            self._on_trial = False
        overloaded = outcome is Outcome.OVERLOADED
        if overloaded:
            wait_s = config.default_retry_after_s if retry_after_s is None else retry_after_s
            self.overloaded_until = now + min(max(0.0, wait_s), config.max_retry_after_s)
        if outcome is Outcome.ABANDONED or picked_at <= self._ejected_at:
            return trial or overloaded
        if outcome is Outcome.DRAINING:
            self.drain(now)
            return True
        if outcome is Outcome.STALE:
            self.leave_out_stale(now)
            return True
        if overloaded or outcome is Outcome.ANSWERED:
            return self._succeeded(now) or overloaded
        return self._failed(refused=outcome is Outcome.REFUSED, trial=trial, now=now, rng=rng)

    def drain(self, now: float) -> None:
        """Eject it because it reported that it is draining."""
        self._eject(now, self._config.drain_s)

    def leave_out_stale(self, now: float) -> None:
        """Eject it because it is not what its entry in the registry says."""
        self._eject(now, self._config.stale_ejection_s)
        self.stale = True

    def _succeeded(self, now: float) -> bool:
        was_ejected = self._ejected_until > -inf
        if was_ejected:
            self.clear()
        self._roll(now)
        self._good[0] += 1
        self._in_a_row = 0
        return was_ejected

    def _failed(self, *, refused: bool, trial: bool, now: float, rng: Random) -> bool:
        config = self._config
        self._roll(now)
        self._bad[0] += 1
        self._in_a_row += 1
        if now < self._ejected_until:
            return False  # picked in panic mode while it was ejected: it is known to fail
        if not (refused or trial or self._in_a_row >= config.consecutive_failures):
            bad, seen = sum(self._bad), sum(self._bad) + sum(self._good)
            if (
                seen < config.success_rate_min_requests
                or seen - bad >= config.min_success_rate * seen
            ):
                return False
        base_s, cap_s = config.base_ejection_s, config.max_ejection_s
        if refused:
            base_s, cap_s = config.refused_base_ejection_s, config.refused_max_ejection_s
        length_s = base_s
        if self._ejections:  # the cap holds for the length with its jitter
            backoff = Backoff(base_s=base_s, cap_s=inf, jitter=_JITTER)
            length_s = backoff.delay_s(self._ejections, rng)
        self._eject(now, min(length_s, cap_s))
        self._ejections += 1
        self.failing = not refused
        self._forget_window(now)
        return True

    def _eject(self, now: float, seconds: float) -> None:
        self._ejected_at = now
        self._ejected_until = now + seconds
        self.failing = self.stale = False

    def _forget_window(self, now: float) -> None:
        self._good, self._bad = [0, 0, 0], [0, 0, 0]
        self._window_from = now

    def _roll(self, now: float) -> None:
        """Move the window on, by thirds: it covers between two thirds and all of its length."""
        third_s = self._config.success_rate_window_s / 3
        if now - self._window_from >= 3 * third_s:
            self._forget_window(now)
        while now - self._window_from >= third_s:
            self._good = [0, *self._good[:2]]
            self._bad = [0, *self._bad[:2]]
            self._window_from += third_s
