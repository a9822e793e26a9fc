"""Hot-cold, the default: of the lightly loaded workers the quickest, else the least loaded."""

from __future__ import annotations

from math import inf
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


class HotCold(Policy):
    """Prequal's hot/cold rule (Wydrowski et al., NSDI'24), with five changes for small fleets.

    The *load* of a worker is its `backlog`: how long a new image would wait, in times that it takes
    where it is alone, by the worker's last report and what was sent since. A worker is *hot* if its
    load is above the `hot_quantile` of all loads, or if it is a suspect; otherwise it is *cold*.
    The cold worker of the least *cost* is picked; if all are hot, the least loaded. The cost is in
    seconds a megabyte: the time at an idle worker times 1 + load + 2 load^2, and the time on the
    network times the requests there, which share the link.

    The changes:

    - Costs within `cost_tolerance` of the least count as equal. Load decides between them, then
      chance. The latencies of equal workers differ by noise; because Prequal went by that noise, it
      lost to simpler rules with four workers.
    - Load is a part of the cost, because with few slots a load of 0 and a load of 1 are both cold.
      1 + load is the image's own time; the square stands for the images behind it, which wait too.
    - The network counts separately: slots tell nothing about links, and the latency through a full
      link is that of the other uploads.
    - A worker more than `outlier_factor` times as slow as two thirds of the workers is ill rather
      than small. Its cost grows by the square of what it is beyond that, because otherwise it gets
      1 % of the images when the others have full queues, and these are the 99th percentile.
    - Now and then (`exploration_rate`) the idle worker that was used longest ago is picked, because
      a slow worker that is not used has no new latency to report when it recovers.

    The square was chosen by simulation of workers of 10, 20, 80 and 160 ms. Its factor of 2 lies
    between two that were rejected: 1, whose median is 8 to 11 % behind that of C3, and 4, whose
    99th percentile at 85 % load is 13 % longer. Without the square, an image's own expected time,
    the median is up to 18 % behind. With requests per slot for the load, and 1 + 6 load^2, as it
    was before workers reported what an image waits, the mean is up to 1.3 times as long: C3 and
    that rule send images to the slowest workers where a short wait is better. Also rejected: time
    alone, by which clients crowd on the fastest worker because of old reports; load alone, which
    gives a worker of a sixteenth of the speed a sixteenth of the requests.

    With fewer than 2 usable reports it is the power of two choices.

    **Shared workers.** Where reports say that images of several tenants wait, most of what is at a
    worker was sent by others, and its queue never empties. What a report says is then over once the
    worker has run what it counted, and the least of 16 such reports is most likely just the oldest.
    So only *fresh* reports count, not older than a lone image takes there: those that the request
    was preceded by, mostly. A worker with an older one counts as well if it takes less than half as
    long for an image as the second quickest of those. With fewer than two fresh ones all count.
    Simulated (`python -m benchmarks.fairness`), p99 is 58 ms instead of 82.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._report_max_age_s = config.probing.report_max_age_s
        self._hot_quantile = config.hot_cold.hot_quantile
        self._cost_tolerance = config.hot_cold.cost_tolerance
        self._outlier_factor = config.hot_cold.outlier_factor
        self._exploration_rate = config.hot_cold.exploration_rate
        self._exploration_interval_s = config.hot_cold.exploration_interval_s
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
        if not pooled:
            oldest = now - self._report_max_age_s
            loads = [
                (each.backlog if each.load_report_at >= oldest else each.local_requests_per_slot)
                / each.weight
                for each in known
            ]
        else:  # the pool has fresh reports only
            loads = [each.backlog / each.weight for each in known]
        self._picks += self._exploration_rate
        if self._picks >= 1:
            neglected = self._neglected(known, loads, now)
            if neglected is not None:
                self._picks, self._explored_at = 0.0, now
                return neglected
        limit = sorted(loads)[round(self._hot_quantile * (count - 1))]
        costs = [
            each.compute_s_per_mb * (1.0 + load + 2.0 * load * load) + each.upload_s_per_mb
            if load <= limit and each.suspect_until <= now
            else inf
            for each, load in zip(known, loads, strict=True)
        ]
        times = [each.expected_s_per_mb for each in known]
        ordered = sorted(times)
        outlier_s = self._outlier_factor * ordered[2 * (count - 1) // 3] or inf
        if ordered[-1] > outlier_s:
            costs = [
                cost if time <= outlier_s else cost * (time / outlier_s) ** 2
                for cost, time in zip(costs, times, strict=True)
            ]
        near = min(costs) * self._cost_tolerance
        start = int(rng.random() * count)
        best, least = known[start], inf
        for index in range(start - count, start):  # from a random place, once around
            if costs[index] <= near and loads[index] < least:
                best, least = known[index], loads[index]
        if pooled:
            self._pool.picked(best)
        return best

    def _neglected(self, known: Sequence[C], loads: Sequence[float], now: float) -> C | None:
        """The idle candidate that was used longest ago, or None if that is not long enough ago.

        Long enough is `exploration_interval_s`, or less for a worker that was in use for a shorter
        time than that: its first latencies, with cold caches, are a poor sample.
        """
        idle = [each for each, load in zip(known, loads, strict=True) if load == 0]
        if not idle:
            return None
        candidate = min(idle, key=lambda each: each.last_sent_at)
        pause_s = min(
            self._exploration_interval_s, candidate.last_sent_at - candidate.first_sent_at
        )
        return (
            candidate if now - max(candidate.last_sent_at, self._explored_at) >= pause_s else None
        )


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
