"""The load reports that a policy uses: of all workers of a small fleet, a pool for a large one."""

from __future__ import annotations

from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.routing.config import ProbingConfig
    from fingerpost.client.routing.policy import C, Candidate

__all__ = ["ProbePool"]


_requests_per_slot = attrgetter("requests_per_slot")


class ProbePool:
    """Selects the candidates that a policy compares (Prequal, NSDI'24, section 4).

    With up to `pool_size` candidates it selects all. With more it selects those in the pool, which
    holds the newest `pool_size` load reports; none is older than `report_max_age_s` or used too
    often. Each pick also removes one report, the oldest and the worst in turn. If only the oldest
    were removed, the reports that are never used would come to fill the pool.

    A report that comes with an image's answer enters the pool only while probes are answered too.
    Such reports are all of workers that are in use already, and alone they would keep the pool to
    these.

    The list of candidates is compared by identity, so that a pick does not read a thousand of them.
    """

    def __init__(self, config: ProbingConfig) -> None:
        self._size = config.pool_size
        self._age_s = config.report_max_age_s
        self._probes = config.probes_per_request
        # Candidates by id, the one with the oldest report first. Their type is the caller's.
        self._pool: dict[str, Any] = {}
        self._uses: dict[str, int] = {}
        self._worst_next = False
        self._probed_at = -inf
        self._candidates: Sequence[Any] = ()
        self._members: set[str] = set()
        self._mixed = False  # whether the pool may hold others than the members
        self._most_uses = 1

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Add a candidate whose report is new, and remove the oldest if the pool is full."""
        if probed:
            self._probed_at = now
        elif now - self._probed_at > self._age_s:
            return
        pool = self._pool
        pool.pop(candidate.id, None)
        pool[candidate.id] = candidate
        self._uses[candidate.id] = 0
        if candidate.id not in self._members:
            self._mixed = True
        if len(pool) > self._size:
            self._remove(next(iter(pool)))

    def usable(self, candidates: Sequence[C], now: float) -> Sequence[C]:
        """Select those of `candidates` that the policy compares; the result may be empty."""
        if len(candidates) <= self._size:
            return candidates
        if candidates is not self._candidates:
            self._candidates = candidates
            self._members = {each.id for each in candidates}
            self._most_uses = self._reuses(len(candidates))
            self._mixed = True
        pool, members, oldest = self._pool, self._members, now - self._age_s
        while pool and pool[head := next(iter(pool))].load_report_at < oldest:
            self._remove(head)
        if self._mixed:
            self._mixed = not pool.keys() <= members
            if self._mixed:
                return [candidate for key, candidate in pool.items() if key in members]
        return list(pool.values())

    def picked(self, candidate: Candidate) -> None:
        """Count a use of a report, and remove one from a pool that is at least half full."""
        pool, key = self._pool, candidate.id
        if key in pool:
            self._uses[key] += 1
            if self._uses[key] >= self._most_uses:
                self._remove(key)
        if len(pool) < self._size / 2:
            return
        if self._worst_next:
            self._remove(max(pool.values(), key=_requests_per_slot).id)
        else:
            self._remove(next(iter(pool)))
        self._worst_next = not self._worst_next

    def _remove(self, key: str) -> None:
        del self._pool[key]
        del self._uses[key]

    def _reuses(self, count: int) -> int:
        # So many uses balance additions and removals: Prequal's b_reuse, with delta = 1 and one
        # removal in each query. The report that comes with an answer counts as a probe.
        gain = (1 - self._size / count) * (self._probes + 1) - 1
        return max(1, round(2 / gain)) if gain > 0.1 else 20
