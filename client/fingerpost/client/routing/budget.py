"""How much may be sent twice."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.client.routing.config import RoutingConfig

__all__ = ["Budget"]


class Budget:
    """Retries and hedges of one client draw on one budget, so that they cannot multiply a trouble.

    In any `budget_ttl_s` at most `budget_share` of its requests plus `budget_per_s`, and at most
    `budget_bytes_share` of its uploaded bytes, are sent again. The first in a second is exempt
    from the limit on bytes, or one large image could never be retried. (Finagle's `RetryBudget`;
    rejected: gRPC's tokens, which a long quiet time leaves full, and which know no bytes.)
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        # By the second: [second, requests, bytes, extras, extra bytes]; the sums are kept too.
        self._seconds: deque[list[float]] = deque()
        self._sums = [0.0, 0.0, 0.0, 0.0]

    def request(self, now: float, body_bytes: int) -> None:
        """A request begins; it earns its share."""
        self._add(now, 1, body_bytes, 0, 0)

    def spend(self, now: float, body_bytes: int) -> bool:
        """Whether one more attempt may be made; it is charged then.

        Args:
            now: monotonic seconds.
            body_bytes: what it uploads in vain if it is the second time: 0 where the failed
                attempt sent nothing, as when the connection was refused.
        """
        self._expire(now)
        config = self._config
        requests, sent, extras, extra_bytes = self._sums
        allowed = config.budget_share * requests + config.budget_per_s * config.budget_ttl_s
        if extras + 1 > allowed:
            return False
        newest = self._seconds[-1] if self._seconds else None
        first = newest is None or int(newest[0]) != int(now) or not newest[4]
        allowed_bytes = config.budget_bytes_share * sent
        if body_bytes and not first and extra_bytes + body_bytes > allowed_bytes:
            return False
        self._add(now, 0, 0, 1, body_bytes)
        return True

    def _add(self, now: float, *figures: float) -> None:
        self._expire(now)
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0.0, 0.0, 0.0, 0.0])
        newest = self._seconds[-1]
        for index, figure in enumerate(figures):
            newest[index + 1] += figure
            self._sums[index] += figure

    def _expire(self, now: float) -> None:
        oldest = now - self._config.budget_ttl_s
        while self._seconds and self._seconds[0][0] < oldest:
            for index, figure in enumerate(self._seconds.popleft()[1:]):
                self._sums[index] -= figure
