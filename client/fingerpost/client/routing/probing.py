"""When to probe workers for a load report, and which workers."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.basics.moving_average import ewma

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from fingerpost.client.routing.config import ProbingConfig
    from fingerpost.client.routing.endpoint import Endpoint

__all__ = ["Probing"]

_SMOOTHING: Final = 0.2  # weight of the newest round trip
# Before a request (Prequal, synchronous mode: "typically 3 to 5"; it waits for all but one).
_LIKELY: Final = 4
_DRAWN: Final = 3
_SURE: Final = 2  # so few are all waited for


class Probing:
    """Decides how many probes to send, and to which workers.

    With each request `probes_per_request`, where a fraction is carried over; likely ones that
    preceded it count. Between requests one in each half of `report_max_age_s`, until
    `idle_timeout_s` after the last request, so that an idle client costs the workers nothing. A
    token bucket of a tenth of a second limits all of them to `max_probes_per_s`. The reports that
    come with answers do not replace probes: they are only of workers that are in use already.
    """

    def __init__(self, config: ProbingConfig) -> None:
        self._config = config
        self._carried = 0.0
        self._tokens = max(1.0, config.max_probes_per_s / 10)
        self._at = -inf
        self._requested_at = -inf
        self._probed_at = -inf
        self._deck: list[Endpoint] = []
        self._dealt_from: Sequence[Endpoint] = ()
        self._rtt_s = 0.0

    def on_request(self, now: float, preceded: int = 0) -> int:
        """How many probes to send along with a request, which so many likely ones preceded."""
        self._requested_at = now
        self._carried = max(0.0, self._carried + self._config.probes_per_request - preceded)
        if self._carried < 1.0:
            return 0
        wanted = int(self._carried)
        self._carried -= wanted
        return self._take(wanted, now)

    def on_timer(self, now: float) -> int:
        """How many probes to send now, without a request; to be called at `next_at`."""
        if now < self.next_at():
            return 0
        return self._take(1, now)

    def next_at(self) -> float:
        """When to call `on_timer` next; infinite once the client is idle."""
        next_at = max(self._requested_at, self._probed_at) + self._config.report_max_age_s / 2
        idle_at = self._requested_at + self._config.idle_timeout_s
        return next_at if -inf < next_at <= idle_at else inf

    def ahead(self, now: float, *, likely: bool = False) -> int:
        """How many probes to send before a request that is `worth_waiting`, at most.

        4 where the policy says which workers are `likely`; 3 where they are drawn at random.
        """
        return self._take(_LIKELY if likely else _DRAWN, now)

    @staticmethod
    def answers(asked: int) -> int:
        """For how many answers of so many probes such a request waits: all but one of 3 or more.

        One worker that is stopped, or slow to answer, so delays no image.
        """
        return asked - 1 if asked > _SURE else asked

    def answered(self, rtt_s: float) -> None:
        """Record the round trip of a probe that was answered."""
        self._rtt_s = ewma(self._rtt_s or rtt_s, rtt_s, _SMOOTHING)

    def worth_waiting(self, expected_s: float, freshest_at: float, now: float) -> bool:
        """Whether a request should be preceded by probes, and wait for most of the answers.

        Args:
            expected_s: the expected time of its upload and answer.
            freshest_at: when the newest report arrived; minus infinity if there is none.
            now: monotonic seconds.
        """
        if now - freshest_at > self._config.report_max_age_s:
            return True
        return 0 < self._rtt_s * self._config.sync_threshold_rtts < expected_s

    def draw(self, endpoints: Sequence[Endpoint], count: int, rng: Random) -> list[Endpoint]:
        """Draw up to `count` endpoints at random; each once, before any is drawn again."""
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
        rate = self._config.max_probes_per_s
        if self._at > -inf:
            self._tokens = min(max(1.0, rate / 10), self._tokens + (now - self._at) * rate)
        self._at = now
        granted = min(wanted, int(self._tokens))
        self._tokens -= granted
        if granted:
            self._probed_at = now
        return granted
