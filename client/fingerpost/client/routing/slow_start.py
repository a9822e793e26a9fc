"""Which share of the requests a new worker gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.client.routing.config import SlowStartConfig
    from fingerpost.client.routing.endpoint import Endpoint

__all__ = ["SlowStart"]


class SlowStart:
    """Limits a new worker to a part of its fair share, which grows from 10 % to all in 30 s.

    The fair share is 1 / workers. It is not the share of the picks that the policy would give it:
    a new worker is idle, so that a policy that goes by load picks it nearly always, and a tenth of
    all requests floods one worker of a hundred. Each pick of the balancer earns a new worker some
    credit, and each of its own picks spends 1. Rejected: scaled weights, as in Envoy, because
    policies that do not read weights ignore them (envoyproxy/envoy#11050).

    Attributes:
        picks: all picks of the balancer so far; it counts them.
    """

    def __init__(self, config: SlowStartConfig) -> None:
        self._config = config
        self.picks = 0

    def share(self, age_s: float) -> float:
        """The part of its fair share that a worker of this age gets, 0 to 1."""
        config = self._config
        return min(1.0, config.min_share + (1 - config.min_share) * age_s / config.window_s)

    def until(self, endpoint: Endpoint) -> float:
        """When its slow start ends, in monotonic seconds; minus infinity if it had none."""
        return endpoint.new_at + self._config.window_s

    def admits(self, endpoint: Endpoint, count: int, now: float) -> bool:
        """Whether a new worker, one of `count`, may take this pick; if so, spend its credit."""
        earned = (self.picks - endpoint.credit_at) * self.share(now - endpoint.new_at) / count
        endpoint.credit_at = self.picks
        endpoint.credit = min(2.0, endpoint.credit + earned)  # no burst after a pause
        if endpoint.credit < 1:
            return False
        endpoint.credit -= 1
        return True
