"""Whose load reports a rule may go by: all of a small fleet, a pool of a large one."""

from __future__ import annotations

from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import C, Candidate

__all__ = ["ProbePool"]


_pressure = attrgetter("pressure")


class ProbePool:
    """The workers to choose among.

    Up to `pool_size` workers: all of them. Past it: those whose report stands in the pool, which
    holds the newest `pool_size` reports, none older than `report_age_s`, none used too often. Each
    pick also removes one, the oldest and the worst in turn: without the latter the pool would
    come to hold the reports that nobody wants to use. (Prequal, NSDI'24, section 4.)

    Reports that come with answers count while probes are answered too. Alone they are of workers
    in use already, and the pool would keep to these: of the workers of a client whose probes were
    lost, the least used had none.

    Candidates are remembered by identity, so that a pick need not read a thousand of them.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._size = config.pool_size
        self._age_s = config.report_age_s
        self._probes = config.probes_per_request
        # By id, by age of the report, the oldest first. They are candidates all, of what type
        # only the caller knows.
        self._pool: dict[str, Any] = {}
        self._uses: dict[str, int] = {}
        self._worst_next = False
        self._probed_at = -inf
        self._candidates: Sequence[Any] = ()
        self._members: set[str] = set()
        self._most_uses = 1

    def reported(self, candidate: Candidate, now: float, *, probed: bool) -> None:
        """Take a fresh report in, the oldest out where there is no room."""
        if probed:
            self._probed_at = now
        elif now - self._probed_at > self._age_s:
            return
        pool = self._pool
        pool.pop(candidate.id, None)
        pool[candidate.id] = candidate
        self._uses[candidate.id] = 0
        if len(pool) > self._size:
            self._remove(next(iter(pool)))

    def usable(self, candidates: Sequence[C], now: float) -> Sequence[C]:
        """Those of `candidates` that a rule may choose among; it may be none."""
        if len(candidates) <= self._size:
            return candidates
        if candidates is not self._candidates:
            self._candidates = candidates
            self._members = {each.id for each in candidates}
            self._most_uses = self._reuses(len(candidates))
        pool, members, oldest = self._pool, self._members, now - self._age_s
        while pool and pool[head := next(iter(pool))].load_at < oldest:
            self._remove(head)
        if pool.keys() <= members:
            return list(pool.values())
        return [candidate for key, candidate in pool.items() if key in members]

    def picked(self, candidate: Candidate) -> None:
        """Count a use, and remove one report in turn from a pool that is half full at least."""
        pool, key = self._pool, candidate.id
        if key in pool:
            self._uses[key] += 1
            if self._uses[key] >= self._most_uses:
                self._remove(key)
        if len(pool) < self._size / 2:
            return
        if self._worst_next:
            self._remove(max(pool.values(), key=_pressure).id)
        else:
            self._remove(next(iter(pool)))
        self._worst_next = not self._worst_next

    def _remove(self, key: str) -> None:
        del self._pool[key]
        del self._uses[key]

    def _reuses(self, count: int) -> int:
        # What balances additions and removals: Prequal's b_reuse, with delta = 1 and one removed
        # a query, where the report that comes with the answer counts as a probe.
        gain = (1 - self._size / count) * (self._probes + 1) - 1
        return max(1, round(2 / gain)) if gain > 0.1 else 20
