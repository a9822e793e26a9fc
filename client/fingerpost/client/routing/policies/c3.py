"""C3: the least expected time, with a cubic penalty for queues."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.routing.policies.power_of_two import PowerOfTwo
from fingerpost.client.routing.policy import Policy
from fingerpost.client.routing.probe_pool import ProbePool

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import C, Candidate

__all__ = ["C3"]


class C3(Policy):
    """Picks the least R - 1/mu + q^3/mu (Suresh et al., 'C3', NSDI'15). For comparison.

    R is the expected time. q is the number of requests at the worker, with this one. 1/mu is the
    time between two answers of a busy worker: the expected time without waiting, over its slots.
    As in Prequal's comparison the figures are those of probes. Ties are broken at random.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._pool = ProbePool(config.probing)
        self._fallback = PowerOfTwo()

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Add the candidate to the pool."""
        self._pool.reported(candidate, now, probed=probed)

    def pick(self, candidates: Sequence[C], now: float, rng: Random) -> C:
        """See `Policy.pick`."""
        known = self._pool.usable(candidates, now)
        if len(known) < min(2, len(candidates)):
            return self._fallback.pick(candidates, now, rng)
        best, least = known[0], float("inf")
        start = int(rng.random() * len(known))
        for index in range(start - len(known), start):
            each = known[index]
            report = each.load_report
            slots = 1 if report is None else max(1, report.slots)
            queue = 1 + each.requests_per_slot * slots
            reported = report.rif / slots if report is not None else 0.0
            between_s = each.expected_s_per_mb / slots
            score = each.expected_s_per_mb * max(1.0, reported) - between_s + queue**3 * between_s
            if score < least:
                best, least = each, score
        if known is not candidates:
            self._pool.picked(best)
        return best
