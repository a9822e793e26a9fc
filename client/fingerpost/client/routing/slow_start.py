"""How much of its share a new worker gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.endpoint import Endpoint

__all__ = ["SlowStart"]


class SlowStart:
    """Limits a new worker to a share of its fair part of the picks, from 10 % to all in 30 s.

    The share is of the fair part, 1 / workers, and not of the picks that would fall on it: a new
    worker is idle, so that a rule that goes by load picks it nearly always, and a tenth of
    everything floods one of a hundred. Each pick of the balancer (`picks` counts them) earns a new
    worker a bit of credit, and its own picks spend it, one each. Rejected: scaling weights, as
    Envoy does, because rules that do not read weights pass it over (envoyproxy/envoy#11050).
    """

    def __init__(self, config: RoutingConfig) -> None:
        self._config = config
        self.picks = 0

    def share(self, age_s: float) -> float:
        """The part of its fair share that a worker of that age gets."""
        config = self._config
        return min(1.0, config.ramp_floor + (1 - config.ramp_floor) * age_s / config.ramp_s)

    def until(self, endpoint: Endpoint) -> float:
        """When it gets its full share; minus infinity where it always has."""
        return endpoint.new_at + self._config.ramp_s

    def admits(self, endpoint: Endpoint, count: int, now: float) -> bool:
        """Whether a new worker of `count` may take this pick; it is charged for it then."""
        earned = (self.picks - endpoint.credit_at) * self.share(now - endpoint.new_at) / count
        endpoint.credit_at = self.picks
        endpoint.credit = min(2.0, endpoint.credit + earned)  # no burst after a pause
        if endpoint.credit < 1:
            return False
        endpoint.credit -= 1
        return True
