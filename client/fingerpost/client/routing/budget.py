"""The retry budget: how many requests and bytes may be sent again."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fingerpost.client.routing.config import RetryConfig

__all__ = ["Budget"]

# Without an attempt over the budget after one that failed; as `budget_min_per_s` has it by default.
_LOAN_PAUSE_S: Final = 1.0


class Budget:
    """Limits the retries and hedges of one client, so that they cannot multiply an overload.

    In any `budget_ttl_s` at most `budget_share` of the requests plus `budget_min_per_s` are sent
    again, and at most `budget_bytes_share` of the uploaded bytes. The first retry in a second is
    exempt from the limit on bytes, or a single large image could never be retried. The scheme is
    Finagle's `RetryBudget`. Rejected: gRPC's tokens, which are full after a long quiet time, and
    do not count bytes.

    What is over the budget may borrow: one attempt at first, one more with each that is answered,
    and after one that is not, one again and none for a second. So many images that one bad worker
    failed at once do not wait for their deadline beside a good worker, and a cluster in trouble
    gets one attempt a second more.
    """

    def __init__(self, config: RetryConfig) -> None:
        self._config = config
        # One entry a second: [second, requests, bytes, retries, retried bytes]; and their sums.
        self._seconds: deque[list[float]] = deque()
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self._loans, self._most_loans = 0, 1
        self._last_loan_at = self._no_loan_until = -inf

    def request(self, now: float, body_bytes: int) -> None:
        """Record a new request: it earns its share of a retry."""
        newest, sums = self._newest(now), self._sums
        newest[1] += 1.0
        newest[2] += body_bytes
        sums[0] += 1.0
        sums[1] += body_bytes

    def spend(self, now: float, body_bytes: int) -> bool:
        """Whether one more attempt may be made; if so, it is charged to the budget.

        Args:
            now: monotonic seconds.
            body_bytes: the bytes that are uploaded a second time; 0 if the failed attempt sent
                none, as when the connection was refused.
        """
        self._expire(now)
        config = self._config
        requests, sent, extras, extra_bytes = self._sums
        allowed = config.budget_share * requests + config.budget_min_per_s * config.budget_ttl_s
        if extras + 1 > allowed:
            return False
        newest = self._seconds[-1] if self._seconds else None
        first = newest is None or int(newest[0]) != int(now) or not newest[4]
        allowed_bytes = config.budget_bytes_share * sent
        if body_bytes and not first and extra_bytes + body_bytes > allowed_bytes:
            return False
        newest, sums = self._newest(now), self._sums
        newest[3] += 1.0
        newest[4] += body_bytes
        sums[2] += 1.0
        sums[3] += body_bytes
        return True

    def borrow(self, now: float) -> bool:
        """Whether one attempt over the budget may be made now; if so, `repay` has to follow."""
        if now - self._last_loan_at > self._config.budget_ttl_s:
            self._most_loans = 1  # what was answered long ago proves nothing
        if self._loans >= self._most_loans or now < self._no_loan_until:
            return False
        self._loans += 1
        self._last_loan_at = now
        return True

    def repay(self, now: float, *, answered: bool) -> None:
        """End what `borrow` allowed; `answered` is whether a worker answered it."""
        self._loans -= 1
        if answered:
            self._most_loans += 1
        else:
            self._most_loans = 1
            self._no_loan_until = now + _LOAN_PAUSE_S

    def _newest(self, now: float) -> list[float]:
        """The entry of the present second."""
        seconds = self._seconds
        if seconds and seconds[-1][0] == int(now):
            return seconds[-1]
        self._expire(now)
        newest = [float(int(now)), 0.0, 0.0, 0.0, 0.0]
        seconds.append(newest)
        return newest

    def _expire(self, now: float) -> None:
        oldest = now - self._config.budget_ttl_s
        while self._seconds and self._seconds[0][0] < oldest:
            for index, figure in enumerate(self._seconds.popleft()[1:]):
                self._sums[index] -= figure
