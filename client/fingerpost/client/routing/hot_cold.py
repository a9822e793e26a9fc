"""The default rule: of the lightly loaded the quickest, or else the least loaded."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from fingerpost.client.routing.policy import Policy
from fingerpost.client.routing.power_of_two import PowerOfTwo
from fingerpost.client.routing.reports import Reports

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import C, Candidate

__all__ = ["HotCold"]


class HotCold(Policy):
    """Prequal's hot/cold rule (Wydrowski et al., NSDI'24), with three changes for small fleets.

    Load is requests per slot, by the worker's report and what was sent it since. Hot is who has
    more than the `quantile` of the loads, or failed a moment ago. Of the cold the one of the least
    cost wins: the seconds a megabyte takes there (upload and answer, without the queue that was in
    them) times 1 + 4 load^2. If all are hot, the least loaded.

    The changes: costs within `tolerance` of the least count as equal, and load decides, then
    chance, because the latency of equal workers differs by noise, and going by noise is how
    Prequal lost to simpler rules with four workers; load counts in the cost, because with few
    slots a load of 0 and of 1 are both cold; and now and then an idle worker is asked that was not
    asked for longest (`explore`), because a slow one that nobody uses has no new latency to report
    when it recovers.

    The square is between two that were rejected. Time times the queue that the image would join
    is the best for this image and not for those behind it: at 90 % load the median was 4 to 12 %
    behind C3's. C3's cube of the queue goes to the slowest workers while the fast ones have free
    slots: p99 was four times as long with workers 16 times apart. With a factor of 2 instead of 4
    p99 is a little better, and the median again 6 % behind. Also rejected: time alone, which makes
    clients crowd on the fastest on old news; load alone, which gives a worker of a sixteenth of the
    speed a sixteenth of the requests, and these are the p99.

    Under 2 usable reports it is the power of two choices.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self._reports = Reports(config)
        self._fallback = PowerOfTwo()
        self._picks = 0.0
        self._explored_at = -inf

    def reported(self, worker: Candidate, now: float, *, probed: bool) -> None:
        """Take it into the pool."""
        self._reports.reported(worker, now, probed=probed)

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`. Reads `pool_size` workers at most."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        known = self._reports.usable(candidates, now)
        count = len(known)
        if count < 2:
            return self._fallback.pick(candidates, now, rng)
        config = self._config
        oldest = now - config.report_age_s
        loads, times = [], []
        for each in known:
            report = each.load
            if report is not None and each.load_at >= oldest:
                loads.append(each.pressure / each.weight)
                times.append(each.seconds_per_mb / max(1.0, report.rif * each.per_slot))
            else:
                loads.append(each.local_pressure / each.weight)
                times.append(each.seconds_per_mb)
        self._picks += config.explore
        if self._picks >= 1 and now - self._explored_at >= config.explore_s:
            self._picks, self._explored_at = 0.0, now
            idle = [each for each, load in zip(known, loads, strict=True) if load == 0]
            if idle:
                return min(idle, key=lambda each: each.sent_at)
        limit = sorted(loads)[round(config.quantile * (count - 1))]
        costs = [
            time * (1.0 + 4.0 * load * load) if load <= limit and each.failed_until <= now else inf
            for each, load, time in zip(known, loads, times, strict=True)
        ]
        near = min(costs) * config.tolerance
        start = int(rng.random() * count)
        best, least = known[start], inf
        for index in range(start - count, start):  # from a random place, once around
            if costs[index] <= near and loads[index] < least:
                best, least = known[index], loads[index]
        if known is not candidates:
            self._reports.picked(best)
        return best
