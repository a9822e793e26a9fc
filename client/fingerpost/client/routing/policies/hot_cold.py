"""Hot-cold, the default: of the lightly loaded workers the quickest, else the least loaded."""

from __future__ import annotations

from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

from fingerpost.client.routing.policies.power_of_two import PowerOfTwo
from fingerpost.client.routing.policy import Policy
from fingerpost.client.routing.probe_pool import ProbePool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import C, Candidate

__all__ = ["HotCold"]

_last_sent_at = attrgetter("last_sent_at")


class HotCold(Policy):
    """Prequal's hot/cold rule (Wydrowski et al., NSDI'24), with six changes for small fleets.

    The *load* of a worker is its `backlog`: how long a new image would wait, in times that it takes
    where it is alone, by the worker's last report and what was sent since. A worker is *hot* if its
    load is above the `hot_quantile` of all loads, or if it is a suspect; otherwise it is *cold*.
    The cold worker of the least *cost* is picked; if all are hot, the least loaded. The cost is in
    seconds a megabyte: the time at an idle worker times 1 + load + (1 + 1 / slots) load^2, and the
    time on the network times the requests there, which share the link.

    The changes:

    - Costs within `cost_tolerance` of the least count as equal. Load decides between them, then
      chance. The latencies of equal workers differ by noise; because Prequal went by that noise, it
      lost to simpler rules with four workers.
    - Load is a part of the cost, because with few slots a load of 0 and a load of 1 are both cold.
      1 + load is the image's own time; the square stands for the images behind it, which wait too:
      the less, the more images the worker works on at once. An image in a batch that takes as long
      with it as without delays nobody.
    - The network counts separately: slots tell nothing about links, and the latency through a full
      link is that of the other uploads.
    - A worker more than `outlier_factor` times as slow as two thirds of the workers is ill rather
      than small. Its cost grows by the square of what it is beyond that, because otherwise it gets
      1 % of the images when the others have full queues, and these are the 99th percentile.
    - Before an image that is worth it, those workers are asked for their load that it most likely
      goes to: of the least cost if nobody had sent anything there since they reported. Drawn at
      random, three of sixteen mostly tell of workers that it does not go to. What says nothing of
      its time costs nothing, and is asked first.
    - Now and then (`exploration_rate`) the idle worker that was used longest ago is picked, because
      a slow worker that is not used has no new latency to report when it recovers.

    The square was chosen by simulation of workers of 10, 20, 80 and 160 ms. Its factor of 2, for
    one slot, lies between two that were rejected: 1, whose median is 8 to 11 % behind that of C3,
    and 4, whose 99th percentile at 85 % load is 13 % longer. Without the square, an image's own
    expected time, the median is up to 18 % behind. With requests per slot for the load, and
    1 + 6 load^2, as it was before workers reported what an image waits, the mean is up to 1.3 times
    as long: C3 and that rule send images to the slowest workers where a short wait is better. Also
    rejected: time alone, by which clients crowd on the fastest worker because of old reports; load
    alone, which gives a worker of a sixteenth of the speed a sixteenth of the requests. With the
    factor of 2 for all slots, p99 at 80 % load is three times as long where a batch takes as long
    as one image. 2 / sqrt(slots) has a median 4 % behind C3's, once 11 %, for linear ones at 40 %,
    of which some do not know their slots yet.

    With fewer than 2 usable reports it is the power of two choices.

    **Shared workers.** Where reports say that images of several tenants wait, most of what is at a
    worker was sent by others, and its queue never empties. What a report says is then over once the
    worker has run what it counted, and the least of 16 such reports is most likely just the oldest.
    So only *fresh* reports count, not older than a lone image takes there: those that the request
    was preceded by, mostly. A worker with an older one counts as well if it takes less than half as
    long for an image as the second quickest of those. With fewer than two fresh ones all count.
    Simulated (`python -m benchmarks.fairness`), p90 is 47 ms instead of 51, p99.9 58 instead of 72.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._report_max_age_s = config.probing.report_max_age_s
        self._hot_quantile = config.hot_cold.hot_quantile
        self._cost_tolerance = config.hot_cold.cost_tolerance
        self._outlier_factor = config.hot_cold.outlier_factor
        self._exploration_rate = config.hot_cold.exploration_rate
        self._exploration_interval_s = config.hot_cold.exploration_interval_s
        # By the number of workers that are compared: which one in the order of loads is the limit.
        counts = range(config.probing.pool_size + 1)
        self._ranks = [round(self._hot_quantile * max(0, count - 1)) for count in counts]
        self._pool_size = config.probing.pool_size
        self._pool = ProbePool(config.probing)
        self._fallback = PowerOfTwo()
        self._picks = 0.0
        self._explored_at = -inf
        self._shared_until = -inf

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Add the candidate to the pool."""
        self._pool.reported(candidate, now, probed=probed)
        report = candidate.load_report
        if report is not None and report.tenants:
            self._shared_until = now + self._report_max_age_s

    def likely(self, candidates: Sequence[C], now: float, rng: Random) -> Sequence[C] | None:
        """See `Policy.likely`: those of the least `least_cost`, suspects last.

        None for a pool; for shared workers, where all clients would ask the same ones again; and
        where a worker makes no forecast: there is no telling how much of a full queue is done by
        now, so that it would not be asked again.
        """
        if len(candidates) > self._pool_size or now <= self._shared_until:
            return None
        reports = [each.load_report for each in candidates if each.load_report is not None]
        if not all(each.alone_s for each in reports):
            return None
        order = [
            (each.suspect_until > now, each.least_cost(now), rng.random(), index)
            for index, each in enumerate(candidates)
        ]
        return [candidates[index] for *_, index in sorted(order)]

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`. Reads at most `ProbingConfig.pool_size` candidates."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        known = self._pool.usable(candidates, now)
        pooled = known is not candidates
        if now <= self._shared_until:
            known = _fresh(known, now)
        count = len(known)
        if count < 2:
            return self._fallback.pick(candidates, now, rng)
        if pooled:  # the pool has fresh reports only
            loads = [each.weighted_backlog for each in known]
            costs = [each.cost_s_per_mb for each in known]
        else:
            loads, costs = _with_old_reports(known, now - self._report_max_age_s)
        ordered = sorted(loads)
        limit = ordered[self._ranks[count]]
        self._picks += self._exploration_rate
        if self._picks >= 1 and not ordered[0]:
            neglected = self._neglected(known, loads, now)
            if neglected is not None:
                self._picks, self._explored_at = 0.0, now
                return neglected
        best = self._best(known, loads, costs, limit, now, rng)
        if pooled:
            self._pool.picked(best)
        return best

    def _best(
        self,
        known: Sequence[C],
        loads: list[float],
        costs: list[float],
        limit: float,
        now: float,
        rng: Random,
    ) -> C:
        """The cold candidate of the least cost; if all are hot, the least loaded.

        Whether a candidate is cold, and whether it is an outlier, is looked at only where it is
        among the cheapest: most times that is one.

        Args:
            costs: as they are for cold candidates that are not outliers; may be changed.
            limit: the load above which a candidate is hot.
        """
        count = len(known)
        times = [each.expected_s_per_mb for each in known]
        outlier_s = self._outlier_factor * sorted(times)[2 * (count - 1) // 3] or inf
        start = int(rng.random() * count)
        best, ordered = known[start], sorted(costs)
        while ordered[0] < inf:
            index = costs.index(ordered[0])
            best = known[index]
            if loads[index] > limit or best.suspect_until > now:
                costs[index] = inf
            elif times[index] > outlier_s:
                costs[index] *= _square(times[index] / outlier_s)
                times[index] = 0.0
            else:
                break
            ordered = sorted(costs)
        near = ordered[0] * self._cost_tolerance
        if ordered[1] > near:
            return best
        least = inf
        for index in range(start - count, start):  # from a random place, once around
            if costs[index] > near or loads[index] >= least:
                continue
            each = known[index]
            if near < inf and (loads[index] > limit or each.suspect_until > now):
                continue
            cost, time = costs[index], times[index]
            if time <= outlier_s or cost * _square(time / outlier_s) <= near:
                best, least = each, loads[index]
        return best

    def _neglected(self, known: Sequence[C], loads: Sequence[float], now: float) -> C | None:
        """The idle candidate that was used longest ago, or None if that is not long enough ago.

        At least one is idle.

        Long enough is `exploration_interval_s`, or less for a worker that was in use for a shorter
        time than that: its first latencies, with cold caches, are a poor sample.
        """
        idle = [each for each, load in zip(known, loads, strict=True) if not load]
        candidate = min(idle, key=_last_sent_at)
        pause_s = min(
            self._exploration_interval_s, candidate.last_sent_at - candidate.first_sent_at
        )
        return (
            candidate if now - max(candidate.last_sent_at, self._explored_at) >= pause_s else None
        )


def _with_old_reports(known: Sequence[C], oldest: float) -> tuple[list[float], list[float]]:
    """Loads and costs, where only the client's own requests are the load of old reports."""
    loads = [
        each.weighted_backlog
        if each.load_report_at >= oldest
        else each.local_requests_per_slot / each.weight
        for each in known
    ]
    costs = [
        each.cost_s_per_mb if each.load_report_at >= oldest else each.cost_at(load)
        for each, load in zip(known, loads, strict=True)
    ]
    return loads, costs


def _square(ratio: float) -> float:
    return ratio * ratio  # infinite where `**` raises an error


def _fresh(known: Sequence[C], now: float) -> Sequence[C]:
    """The candidates that count at shared workers: with fresh reports, or much quicker."""
    fresh = [
        each
        for each in known
        if each.load_report is not None and now - each.load_report_at <= each.load_report.alone_s
    ]
    if len(fresh) < 2:
        return known
    quicker_s = sorted(each.expected_s_per_mb for each in fresh)[1] / 2
    return [*fresh, *(e for e in known if e.expected_s_per_mb < quicker_s and e not in fresh)]
