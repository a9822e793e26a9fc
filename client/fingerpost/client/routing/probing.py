"""When to ask for load reports, and whom."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.endpoint import Endpoint

__all__ = ["Probing"]


class Probing:
    """How many probes are due, and at whom.

    With each request `probes_per_request`, a fraction carried over; at most `probes_per_s`, as a
    bucket that holds a tenth of a second. Between requests one each `report_age_s` / 2, until
    `probe_idle_s` after the last: an idle client costs the workers nothing. Reports that come with
    answers are no replacement: they tell only of workers that are in use already.
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self._carried = 0.0
        self._tokens = max(1.0, config.probes_per_s / 10)
        self._at = -inf
        self._requested_at = -inf
        self._probed_at = -inf
        self._deck: list[Endpoint] = []
        self._dealt_from: Sequence[Endpoint] = ()
        self._rtt_s = 0.0

    def on_request(self, now: float) -> int:
        """How many probes to send along with a request."""
        self._requested_at = now
        self._carried += self._config.probes_per_request
        wanted = int(self._carried)
        self._carried -= wanted
        return self._take(wanted, now)

    def on_timer(self, now: float) -> int:
        """How many to send now without a request; call it at `next_at`."""
        if now < self.next_at():
            return 0
        return self._take(1, now)

    def next_at(self) -> float:
        """When `on_timer` is worth calling; infinite once the client is idle."""
        next_at = max(self._requested_at, self._probed_at) + self._config.report_age_s / 2
        idle_at = self._requested_at + self._config.probe_idle_s
        return next_at if -inf < next_at <= idle_at else inf

    def ahead(self, now: float) -> int:
        """How many to send where it is `worth_waiting`: 3, or fewer where there were so many."""
        return self._take(3, now)

    def answered(self, rtt_s: float) -> None:
        """A probe was answered after so long."""
        self._rtt_s = rtt_s if not self._rtt_s else self._rtt_s + 0.2 * (rtt_s - self._rtt_s)

    def worth_waiting(self, expected_s: float, freshest_at: float, now: float) -> bool:
        """Whether to probe 3 and wait for 2 (`probe_wait_s` at most) before a pick.

        Args:
            expected_s: how long upload and answer will probably take.
            freshest_at: when the newest report arrived, minus infinity where there is none.
            now: monotonic seconds.
        """
        if now - freshest_at > self._config.report_age_s:
            return True
        return 0 < self._rtt_s * self._config.probe_ahead < expected_s

    def draw(self, endpoints: Sequence[Endpoint], count: int, rng: Random) -> list[Endpoint]:
        """`count` workers, each once before any comes again."""
        if endpoints is not self._dealt_from:
            self._dealt_from, self._deck = endpoints, []
        drawn: list[Endpoint] = []
        for _ in range(min(count, len(endpoints))):
            if not self._deck:
                self._deck = list(endpoints)
                rng.shuffle(self._deck)
            drawn.append(self._deck.pop())
        return drawn

    def _take(self, wanted: int, now: float) -> int:
        rate = self._config.probes_per_s
        if self._at > -inf:
            self._tokens = min(max(1.0, rate / 10), self._tokens + (now - self._at) * rate)
        self._at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        if granted:
            self._probed_at = now
        return granted
