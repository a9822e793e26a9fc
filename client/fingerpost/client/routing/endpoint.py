"""A worker as one client knows it: its load, its expected time, its failures."""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING, Final

from fingerpost.basics.moving_average import ewma, time_weight
from fingerpost.client.routing.ejection import Ejection
from fingerpost.client.routing.image_size import ImageSize
from fingerpost.client.routing.outcome import Outcome
from fingerpost.client.routing.overload_limit import OverloadLimit
from fingerpost.registry.load import WorkerState

if TYPE_CHECKING:
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.upload_limit import UploadLimit
    from fingerpost.registry import Instance, LoadReport

__all__ = ["Endpoint"]

# This client's own latency samples. Their average is used for `_OWN_S` beside the worker's report,
# which covers more requests, but forgets old ones only with new ones. The weight of a sample grows
# with the pause before it, so that few are enough to notice that a slow worker has recovered. A
# pause as long as the worker had been in use before it has the full weight.
_OWN_S: Final = 10.0
_SMOOTHING: Final = 0.1
_NEWEST: Final = 0.6
_MEAN_S: Final = 1.0
_LEAST_S: Final = 1e-3
_LEAST_MB: Final = 1e-6


class Endpoint:
    """A worker as one client knows it; the `Candidate` that a policy sees.

    The expected time of a megabyte has two parts. `compute_s_per_mb` is the time at a worker where
    nothing waits: each sample is divided by the queue that its image met. `transfer_s_per_mb` is
    the time on the network: each sample is divided by the requests that shared the link. Rejected:
    an average of undivided times over the present queue, which is noise. Both are ratios of two
    averages, seconds and megabytes, and not averages of ratios, in which the fixed cost of a
    thumbnail would count as much as that of a photograph.

    `backlog` is how long a new image would wait, in times that it takes where it is alone: by the
    worker's own forecast, and 1 / slots more for each request that was sent since. A worker of an
    older release makes no forecast, and its requests per slot tell little of the time. They count
    as the backlog b with b + 2 b^2 = 6 (requests per slot)^2, so that hot-cold's cost is the same
    as it was for such workers.

    `weighted_backlog` and `cost_s_per_mb` follow from the others. They are made anew with each
    event, about five for an image, because each pick reads those of 16 workers.
    """

    __slots__ = (
        "_behind",
        "_image_size",
        "_mb",
        "_own_at",
        "_own_s",
        "_report_max_age_s",
        "_suspect_s",
        "_timed",
        "_transfer_s",
        "backlog",
        "compute_s_per_mb",
        "cost_s_per_mb",
        "credit",
        "credit_at",
        "ejection",
        "expected_s_per_mb",
        "first_sent_at",
        "id",
        "in_flight",
        "instance",
        "inverse_slots",
        "last_sent_at",
        "load_report",
        "load_report_at",
        "local_requests_per_slot",
        "new_at",
        "overload",
        "renewed_at",
        "requests_per_slot",
        "suspect_until",
        "transfer_s_per_mb",
        "upload_s_per_mb",
        "uploads",
        "weight",
        "weighted_backlog",
    )

    def __init__(
        self,
        instance: Instance,
        config: RoutingConfig,
        new_at: float = -inf,
        image_size: ImageSize | None = None,
    ) -> None:
        """Make the endpoint of a worker without any history.

        Args:
            instance: its entry in the registry.
            config: see `RoutingConfig`.
            new_at: when it joined other workers, in monotonic seconds: its slow start begins then.
                Minus infinity if it has none.
            image_size: of the client's images; shared with the other workers' endpoints.
        """
        self._image_size = image_size or ImageSize()
        self.instance = instance
        self.id = instance.id
        self.weight = instance.weight
        self.in_flight = 0
        self.ejection = Ejection(config.ejection)
        self.uploads: UploadLimit | None = None
        self.new_at = new_at
        self.renewed_at = -inf
        self.credit = 0.0
        self.credit_at = 0
        if new_at > -inf:
            self.ejection.require_trial(new_at)
        self.last_sent_at = -inf
        self._report_max_age_s = config.probing.report_max_age_s
        self._suspect_s = config.ejection.suspect_s
        self._forget()

    def _forget(self) -> None:
        self.load_report: LoadReport | None = None
        self.load_report_at = -inf
        self.inverse_slots = 1.0
        self.requests_per_slot = self.local_requests_per_slot = float(self.in_flight)
        self.backlog = _backlog(self.requests_per_slot)
        self._timed = False  # whether the last report has a forecast
        self._behind = 2.0  # what an image costs those behind it, if the report has a forecast
        self.compute_s_per_mb = self.transfer_s_per_mb = self.expected_s_per_mb = 0.0
        self.upload_s_per_mb = 0.0
        self.suspect_until = -inf
        self.first_sent_at = inf
        self.overload = OverloadLimit()
        self._mb = self._own_s = self._transfer_s = 0.0
        self._own_at = -inf
        self._weigh()

    def renew(self, instance: Instance, now: float) -> bool:
        """Take over a new registry entry; False if it is that of another process or address."""
        old = self.instance
        if (old.boot_id, old.address) != (instance.boot_id, instance.address):
            return False
        if instance is not old and instance != old:
            self.renewed_at = now
            if self.ejection.stale:
                self.ejection.clear()
        self.instance = instance
        self.weight = instance.weight
        self._weigh()
        return True

    def may_upload(self, mb: float, deadline: float, now: float) -> bool:
        """Whether an upload of so many megabytes may begin: see `UploadLimit`."""
        uploads = self.uploads
        if uploads is None:
            return True
        if now >= uploads.needed_until:
            self.uploads = None
            return True
        return uploads.allows(mb, deadline - now - self._worker_s(now), now)

    def may_upload_at(self, mb: float, deadline: float, now: float) -> float:
        """When it may begin that may not now; infinite if it would be too late in any case."""
        uploads = self.uploads
        if uploads is None:
            return now
        left_s = deadline - now - self._worker_s(now)
        return inf if uploads.hopeless(mb, left_s) else uploads.allowed_at(mb, left_s, now)

    def _worker_s(self, now: float) -> float:
        """What the worker needs for one more image, in seconds, by its last report."""
        report = self.load_report
        return 0.0 if report is None else max(0.0, report.expected_s - (now - self.load_report_at))

    def dispatched(self, now: float, mb: float = 0.0) -> bool:
        """Count a request that is sent; True if it is the trial that ends an ejection."""
        if self.uploads is not None:
            self.uploads.dispatched(mb, now)
        self.in_flight += 1
        self.last_sent_at = now
        if now < self.first_sent_at:
            self.first_sent_at = now
        self.requests_per_slot += self.inverse_slots
        self.local_requests_per_slot += self.inverse_slots
        if self._timed:
            self.backlog += self.inverse_slots
        else:
            self.backlog = _backlog(self.requests_per_slot)
        self.upload_s_per_mb += self.transfer_s_per_mb
        self._weigh()
        return self.ejection.dispatched(now)

    def requests(self, now: float) -> float:
        """Requests at the worker: by its report if that is fresh, else this client's own."""
        fresh = now - self.load_report_at <= self._report_max_age_s
        return self.requests_per_slot / self.inverse_slots if fresh else self.in_flight

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
        backlog: float,
        backpressure: bool = False,
    ) -> bool:
        """Record the end of a request; True if the worker may have become usable or unusable.

        Only an answer is a sample of latency. A failure is not, however quick it was; the worker
        becomes a suspect instead. See `Pick.release` for the arguments; `requests` is how many
        requests were there when this one was picked, and `backlog` what it was then, with this one.
        """
        self.in_flight -= 1
        self.local_requests_per_slot = self.in_flight * self.inverse_slots
        self.requests_per_slot = max(
            self.local_requests_per_slot, self.requests_per_slot - self.inverse_slots
        )
        if self._timed:
            self.backlog = max(0.0, self.backlog - self.inverse_slots)
        else:
            self.backlog = _backlog(self.requests_per_slot)
        requests_there = self.requests_per_slot / self.inverse_slots
        self.upload_s_per_mb = self.transfer_s_per_mb * (1.0 + requests_there)
        if outcome is Outcome.ANSWERED:
            if self.overload.limit < inf:
                self.overload.answered(self.in_flight + 1, now)
            if sent_mb > 0:
                here = self.inverse_slots
                queue = 1.0 + backlog - here if self._timed else requests * here
                self._sample(now - picked_at, worker_s, sent_mb, requests, max(1.0, queue), now)
        elif outcome in (Outcome.FAILED, Outcome.REFUSED):
            self.suspect_until = now + self._suspect_s
        elif outcome is Outcome.OVERLOADED:
            self.overload.refused(self.in_flight, picked_at=picked_at, now=now)
            if backpressure:
                retry_after_s = self.overload.pause_s(retry_after_s, self.in_flight, rng)
        elif outcome is Outcome.STALE and picked_at <= self.renewed_at:
            outcome = Outcome.ABANDONED  # it was refused by an entry that is corrected already
        self._weigh()
        return self.ejection.finished(
            outcome,
            picked_at=picked_at,
            trial=trial,
            now=now,
            rng=rng,
            retry_after_s=retry_after_s,
        )

    def reported(self, load_report: LoadReport, now: float, unseen: int = 0) -> bool:
        """Take in a load report; True if the worker may have become usable or unusable.

        The report of another process than that of the entry says nothing about the worker, but
        that it is gone. See `Balancer.reported` for the arguments.
        """
        if self.instance.boot_id not in (0, load_report.boot_id):
            if self.ejection.stale and self.ejection.usable_from() > now:
                return False
            self.ejection.leave_out_stale(now)
            return True
        old = self.load_report
        restarted = old is not None and old.boot_id != load_report.boot_id
        if old is not None and not restarted and load_report.seq <= old.seq:
            return False
        if restarted:
            self._forget()
            self.ejection.clear()
        self.load_report = load_report
        self.load_report_at = now
        self.inverse_slots = 1.0 / max(1, load_report.slots)
        self._behind = 1.0 + self.inverse_slots
        self.local_requests_per_slot = self.in_flight * self.inverse_slots
        self.requests_per_slot = max(load_report.rif + unseen, self.in_flight) * self.inverse_slots
        alone_s = load_report.alone_s
        self._timed = alone_s > 0
        if self._timed:
            more = max(unseen, self.in_flight - load_report.rif)
            wait = max(0.0, load_report.expected_s / alone_s - 1.0)
            self.backlog = wait + more * self.inverse_slots
        else:
            self.backlog = _backlog(self.requests_per_slot)
        self._expect(now)
        self._weigh()
        # One that has just registered says STARTING until it knows of it; it serves by then.
        if load_report.state in (WorkerState.READY, WorkerState.STARTING):
            return restarted
        self.ejection.drain(now)
        return True

    def suspect(self, now: float) -> None:
        """Note that a probe was not answered: the worker is a suspect for `suspect_s`."""
        self.suspect_until = max(self.suspect_until, now + self._suspect_s)

    def _sample(
        self,
        elapsed_s: float,
        worker_s: float | None,
        mb: float,
        requests: float,
        queue: float,
        now: float,
    ) -> None:
        # After a long pause the old average is out of date.
        pause_s = now - self._own_at
        known_s = min(_MEAN_S, max(_LEAST_S, self._own_at - self.first_sent_at))
        weight = 1.0 if pause_s > _OWN_S else time_weight(pause_s, _SMOOTHING, _NEWEST, known_s)
        self._image_size.sent(max(mb, _LEAST_MB))
        self._mb = ewma(self._mb, max(mb, _LEAST_MB), weight)
        transfer_s = 0.0 if worker_s is None else max(0.0, elapsed_s - worker_s)
        compute_s = (elapsed_s - transfer_s) / queue
        self._own_s = ewma(self._own_s, compute_s, weight)
        self._transfer_s = ewma(self._transfer_s, transfer_s / max(1.0, requests), weight)
        self._own_at = now
        self._expect(now)

    def _expect(self, now: float) -> None:
        compute_s, report = 0.0, self.load_report
        if report is not None and report.latency_per_cost_s > 0:
            compute_s = report.latency_per_cost_s / max(1.0, report.rif * self.inverse_slots)
            if compute_s:
                self._image_size.told(report.alone_s, compute_s)
        elif report is not None:  # it has had no image yet; 0 as well where it knows no time
            compute_s = report.alone_s / self._image_size.mb
        if self._mb and now - self._own_at <= _OWN_S:
            own_s = self._own_s / self._mb
            compute_s = min(compute_s, own_s) if compute_s else own_s
        self.compute_s_per_mb = compute_s
        self.transfer_s_per_mb = self._transfer_s / self._mb if self._mb else 0.0
        self.expected_s_per_mb = compute_s + self.transfer_s_per_mb
        requests = self.requests_per_slot / self.inverse_slots
        self.upload_s_per_mb = self.transfer_s_per_mb * (1.0 + requests)

    def least_cost(self, now: float) -> float:
        """See `Candidate.least_cost`."""
        report = self.load_report
        if report is None or not self._timed or not self.backlog:
            return self.cost_s_per_mb
        done = (now - self.load_report_at) / report.alone_s
        return self.cost_at(max(0.0, self.backlog - done) / self.weight)

    def _weigh(self) -> None:
        self.weighted_backlog = self.backlog / self.weight
        self.cost_s_per_mb = self.cost_at(self.weighted_backlog)

    def cost_at(self, load: float) -> float:
        """See `Candidate.cost_at`."""
        behind = self._behind if self._timed else 2.0
        time_s = self.compute_s_per_mb * (1.0 + load + behind * load * load)
        return time_s + self.upload_s_per_mb


def _backlog(requests_per_slot: float) -> float:
    """The positive solution of b + 2 b^2 = 6 (requests per slot)^2."""
    return (sqrt(1.0 + 48.0 * requests_per_slot * requests_per_slot) - 1.0) / 4.0
