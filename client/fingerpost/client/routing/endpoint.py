"""What one client knows of one worker."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.ejection import Ejection
from fingerpost.client.routing.outcome import Outcome
from fingerpost.registry.load import WorkerState

if TYPE_CHECKING:
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.registry import Instance, LoadReport

__all__ = ["Endpoint"]

# Own latency samples: how long the mean of them is believed against the worker's report, which
# knows more requests, but forgets only with new ones; and the weight of the newest, which grows
# with the pause before it, so that few suffice to notice that a slow worker has recovered. A pause
# as long as the worker was known before is long.
_OWN_S: Final = 10.0
_SMOOTHING: Final = 0.1
_NEWEST: Final = 0.6
_MEAN_S: Final = 1.0
_LEAST_S: Final = 1e-3
_LEAST_MB: Final = 1e-6


class Endpoint:
    """A `Candidate`: counts, load report, expected time, and its record of failures.

    The expected time of a megabyte is that of the answer where nobody waits, and that on the way
    for each of the requests that share it: they are divided by the queue and by the requests that
    the image met, each sample by its own, because a mean of times over this moment's queue is
    noise. They are kept as ratios of two means, seconds and megabytes, and not as means of ratios,
    in which a thumbnail's fixed cost counts as much as a photograph's.
    """

    __slots__ = (
        "_config",
        "_mb",
        "_own_at",
        "_own_s",
        "_transfer_s",
        "answer_s_per_mb",
        "credit",
        "credit_at",
        "ejection",
        "failed_until",
        "first_at",
        "id",
        "in_flight",
        "instance",
        "load",
        "load_at",
        "local_pressure",
        "new_at",
        "per_slot",
        "pressure",
        "seconds_per_mb",
        "sent_at",
        "transfer_s_per_mb",
        "weight",
    )

    def __init__(self, instance: Instance, config: RoutingConfig, new_at: float = -inf) -> None:
        """`new_at` is when it joined others that were there before: it starts slowly then."""
        self.instance = instance
        self.id = instance.id
        self.weight = instance.weight
        self.in_flight = 0
        self.ejection = Ejection(config)
        self.new_at = new_at
        self.credit = 0.0
        self.credit_at = 0
        if new_at > -inf:
            self.ejection.require_trial(new_at)
        self.sent_at = -inf
        self._config = config
        self._no_figures()

    def _no_figures(self) -> None:
        self.load: LoadReport | None = None
        self.load_at = -inf
        self.per_slot = 1.0
        self.pressure = self.local_pressure = float(self.in_flight)
        self.answer_s_per_mb = self.transfer_s_per_mb = self.seconds_per_mb = 0.0
        self.failed_until = -inf
        self.first_at = inf
        self._mb = self._own_s = self._transfer_s = 0.0
        self._own_at = -inf

    def renew(self, instance: Instance) -> bool:
        """Take what the registry says now; False where that is another process (see `Balancer`)."""
        old = self.instance
        if (old.boot_id, old.address) != (instance.boot_id, instance.address):
            return False
        self.instance = instance
        self.weight = instance.weight
        return True

    def dispatched(self, now: float) -> bool:
        """Count a request; True where it is the trial of a worker that has rested."""
        self.in_flight += 1
        self.sent_at = now
        self.first_at = min(self.first_at, now)
        self.pressure += self.per_slot
        self.local_pressure += self.per_slot
        return self.ejection.dispatched(now)

    def requests(self, now: float) -> float:
        """How many requests there are, by its report if that is fresh, and ours."""
        fresh = now - self.load_at <= self._config.report_age_s
        return self.pressure / self.per_slot if fresh else self.in_flight

    def finished(
        self,
        outcome: Outcome,
        *,
        picked_at: float,
        trial: bool,
        now: float,
        rng: Random,
        retry_after_s: float | None,
        sent_mb: float,
        worker_s: float | None,
        requests: float,
    ) -> bool:
        """A dispatched request ended; True where who is usable may have changed.

        Only an answer is a sample of latency. A failure is none, however quick: it keeps the
        worker from being called cold instead.
        """
        self.in_flight -= 1
        self.local_pressure = self.in_flight * self.per_slot
        self.pressure = max(self.local_pressure, self.pressure - self.per_slot)
        if outcome is Outcome.ANSWERED:
            if sent_mb > 0:
                self._sample(now - picked_at, worker_s, sent_mb, requests, now)
        elif outcome in (Outcome.FAILED, Outcome.REFUSED):
            self.failed_until = now + self._config.wary_s
        return self.ejection.finished(
            outcome,
            picked_at=picked_at,
            trial=trial,
            now=now,
            rng=rng,
            retry_after_s=retry_after_s,
        )

    def reported(self, load: LoadReport, now: float, unseen: int = 0) -> bool:
        """Take a load report; True where who is usable may have changed.

        `unseen` requests were sent while it was on its way, and may not be in it.
        """
        old = self.load
        restarted = old is not None and old.boot_id != load.boot_id
        if old is not None and not restarted and load.seq <= old.seq:
            return False
        if restarted:
            self._no_figures()
            self.ejection.clear()
        self.load = load
        self.load_at = now
        self.per_slot = 1.0 / max(1, load.slots)
        self.local_pressure = self.in_flight * self.per_slot
        self.pressure = max(load.rif + unseen, self.in_flight) * self.per_slot
        self._expect(now)
        if load.state is WorkerState.READY:
            return restarted
        self.ejection.drain(now)
        return True

    def suspected(self, now: float) -> None:
        """It left a probe unanswered: it is not called cold for a while."""
        self.failed_until = max(self.failed_until, now + self._config.wary_s)

    def _sample(
        self, elapsed_s: float, worker_s: float | None, mb: float, requests: float, now: float
    ) -> None:
        # After a long pause the old mean says nothing any more.
        pause_s = now - self._own_at
        known_s = min(_MEAN_S, max(_LEAST_S, self._own_at - self.first_at))
        new = 1.0 if pause_s > _OWN_S else min(_NEWEST, max(_SMOOTHING, pause_s / known_s))
        self._mb += new * (max(mb, _LEAST_MB) - self._mb)
        transfer_s = 0.0 if worker_s is None else max(0.0, elapsed_s - worker_s)
        answer_s = (elapsed_s - transfer_s) / max(1.0, requests * self.per_slot)
        self._own_s += new * (answer_s - self._own_s)
        self._transfer_s += new * (transfer_s / max(1.0, requests) - self._transfer_s)
        self._own_at = now
        self._expect(now)

    def _expect(self, now: float) -> None:
        answer = 0.0
        if self.load is not None and self.load.latency_per_cost_s > 0:
            answer = self.load.latency_per_cost_s / max(1.0, self.load.rif * self.per_slot)
        if self._mb and now - self._own_at <= _OWN_S:
            own = self._own_s / self._mb
            answer = min(answer, own) if answer else own
        self.answer_s_per_mb = answer
        self.transfer_s_per_mb = self._transfer_s / self._mb if self._mb else 0.0
        self.seconds_per_mb = answer + self.transfer_s_per_mb
