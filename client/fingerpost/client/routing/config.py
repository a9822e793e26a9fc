"""The numbers that routing goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.registry.errors import ConfigurationError

if TYPE_CHECKING:
    from random import Random

__all__ = ["RoutingConfig"]


class RoutingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How failures change the choice of workers, and how long to wait between attempts.

    Attributes:
        eject_base_s: how long a worker is left out after its first failure. More spares requests
            a useless attempt; less notices a restarted worker sooner.
        eject_cap_s: the longest ejection, reached by doubling. A trial is one request, so a dead
            worker costs each client one attempt per cap.
        failures_in_a_row: failures other than a refused connection that eject a worker; 5 as in
            Finagle and Envoy. Fewer eject on a single bad image; more let a worker that fails
            fast attract requests, because its in-flight count is always low.
        drain_s: how long a worker that said it is draining is left out before one trial. The
            registry normally removes it long before that.
        busy_s: how long an overloaded worker that sent no `Retry-After` is left out.
        busy_cap_s: the longest `Retry-After` that is believed.
        backoff_base_s: the longest first wait once every worker was tried, doubled each round
            and drawn by full jitter (AWS Architecture Blog, 'Exponential Backoff And Jitter').
        backoff_cap_s: the longest such wait. More spares a cluster in trouble; less returns
            sooner.
    """

    eject_base_s: float = 1.0
    eject_cap_s: float = 30.0
    failures_in_a_row: int = 5
    drain_s: float = 10.0
    busy_s: float = 0.1
    busy_cap_s: float = 30.0
    backoff_base_s: float = 0.05
    backoff_cap_s: float = 2.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value}: use a number above 0")

    def eject_s(self, ejections: int, rng: Random) -> float:
        """Seconds to leave a worker out after `ejections` earlier ones without a success between.

        The first is exact; later ones vary by a quarter, so that clients do not return in step.
        """
        if ejections == 0:
            return self.eject_base_s
        nominal_s = self.eject_base_s * 2.0 ** min(ejections, 30)
        return min(self.eject_cap_s, nominal_s * rng.uniform(0.75, 1.25))

    def backoff_s(self, rounds: int, rng: Random) -> float:
        """Seconds to wait after `rounds` earlier waits of the same request (full jitter)."""
        ceiling_s = min(self.backoff_cap_s, self.backoff_base_s * 2.0 ** min(rounds, 30))
        return rng.uniform(0, ceiling_s)
