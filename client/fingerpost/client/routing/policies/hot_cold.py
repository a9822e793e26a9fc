"""The default rule: of the lightly loaded the quickest, or else the least loaded."""

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

    Load is requests per slot, by the worker's report and what was sent it since. Hot is who has
    more than the `quantile` of the loads, or failed a moment ago. Of the cold the one of the least
    cost wins, for a megabyte: the seconds at the worker where nobody waits, times 1 + 6 load^2, and
    the seconds on the way, times the requests there, which share it. If all are hot, the least
    loaded.

    The changes: costs within `tolerance` of the least count as equal, and load decides, then
    chance, because the latency of equal workers differs by noise, and going by noise is how
    Prequal lost to simpler rules with four workers; load counts in the cost, because with few
    slots a load of 0 and of 1 are both cold; the way is counted by itself, because slots say
    nothing of links, and through a full one the latency is that of the other uploads; a worker more
    than `far` times as slow as two thirds of them are costs the square of what it is beyond that,
    because it is ill rather than small, and the 1 % of the images that it would get from full
    queues are the p99; and now and then an idle worker is asked that was not asked for longest
    (`explore`), because a slow one that nobody uses has no new latency to report when it recovers.

    The square of the load is between two that were rejected. Time times the queue that the image
    would join is the best for this image and not for those behind it: at 90 % load the median was
    4 to 12 % behind C3's. C3's cube of the queue goes to the slowest workers while the fast ones
    have free slots. With a factor of 2 instead of 6 p99 is a little better, and the median again
    6 % behind. Also rejected: time alone, which makes clients crowd on the fastest on old news;
    load alone, which gives a worker of a sixteenth of the speed a sixteenth of the requests.

    Under 2 usable reports it is the power of two choices.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self._pool = ProbePool(config)
        self._fallback = PowerOfTwo()
        self._picks = 0.0
        self._explored_at = -inf

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Take it into the pool."""
        self._pool.reported(candidate, now, probed=probed)

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`. Reads `pool_size` workers at most."""
        count = len(candidates)
        if count == 1:
            return candidates[0]
        known = self._pool.usable(candidates, now)
        count = len(known)
        if count < 2:
            return self._fallback.pick(candidates, now, rng)
        config = self._config
        if known is candidates:
            oldest = now - config.report_age_s
            loads = [
                (each.pressure if each.load_at >= oldest else each.local_pressure) / each.weight
                for each in known
            ]
        else:  # the pool has fresh reports only
            loads = [each.pressure / each.weight for each in known]
        self._picks += config.explore
        if self._picks >= 1:
            neglected = self._neglected(known, loads, now)
            if neglected is not None:
                self._picks, self._explored_at = 0.0, now
                return neglected
        limit = sorted(loads)[round(config.quantile * (count - 1))]
        costs = [
            each.answer_s_per_mb * (1.0 + 6.0 * load * load)
            + each.transfer_s_per_mb * (1.0 + load / each.per_slot)
            if load <= limit and each.failed_until <= now
            else inf
            for each, load in zip(known, loads, strict=True)
        ]
        times = [each.seconds_per_mb for each in known]
        ordered = sorted(times)
        far = config.far * ordered[2 * (count - 1) // 3] or inf
        if ordered[-1] > far:
            costs = [
                cost if time <= far else cost * (time / far) ** 2
                for cost, time in zip(costs, times, strict=True)
            ]
        near = min(costs) * config.tolerance
        start = int(rng.random() * count)
        best, least = known[start], inf
        for index in range(start - count, start):  # from a random place, once around
            if costs[index] <= near and loads[index] < least:
                best, least = known[index], loads[index]
        if known is not candidates:
            self._pool.picked(best)
        return best

    def _neglected(self, known: Sequence[C], loads: Sequence[float], now: float) -> C | None:
        """The idle worker that was asked longest ago, if that is long ago.

        As long as it was in use before that, and `explore_s` at most: what a worker shows in its
        first moments, with cold caches, says little.
        """
        idle = [each for each, load in zip(known, loads, strict=True) if load == 0]
        if not idle:
            return None
        candidate = min(idle, key=lambda each: each.sent_at)
        pause_s = min(self._config.explore_s, candidate.sent_at - candidate.first_at)
        return candidate if now - max(candidate.sent_at, self._explored_at) >= pause_s else None
