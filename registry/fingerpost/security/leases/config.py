"""Settings of those who give leases, and of those who want them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from fingerpost.errors import ConfigurationError

__all__ = ["LeaseConfig", "LeaseRules"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseConfig:
    """How a proxy signs. Raises `ConfigurationError` for a value that is not valid.

    Attributes:
        cluster: whose leases they are (`iss`). Workers refuse those of another cluster, which
            matters where two clusters have one key.
        life_s: how many seconds a lease is valid. With a higher value clients go on for longer
            without a proxy; and somebody whose rights end, or whose lease is stolen, goes on for
            as long. 300 is what a proxy and a registry take to be restarted by hand.
        url_life_s: the same for a URL of `GET /` and of a redirect, which ends up in shell
            histories and on screens. 60 is an upload over a slow line.
    """

    cluster: str = "fingerpost"
    life_s: float = 300.0
    url_life_s: float = 60.0

    def __post_init__(self) -> None:
        _check_cluster(self.cluster)
        for name in ("life_s", "url_life_s"):
            value = getattr(self, name)
            if not 10 <= value <= 86_400:
                raise ConfigurationError(
                    f"{name} {value!r} is not valid: a lease lasts 10 seconds to a day (86400)"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """Which leases a worker accepts. Raises `ConfigurationError` for a value that is not valid.

    Attributes:
        cluster: whose leases; see `LeaseConfig`.
        skew_s: by how many seconds the clocks of proxies and workers may differ. With a higher
            value leases last so much longer. 30 is far more than NTP needs.
        grace_s: for how many seconds a lease is accepted after its end. That is how long clients
            go on in an outage of all proxies, after their leases' life; rights that were taken
            away last so much longer too. By default 0.
        max_known: how many verified leases are remembered, some 1 KB each; more are verified again
            when they come back, 0.2 ms each. Only valid leases are remembered.
        failures_per_s: how many wrong signatures of one sender are checked in a second; above
            that its unknown leases are answered 429 for a moment. 20 of them take 0.4 % of the
            worker's time.
    """

    cluster: str = "fingerpost"
    skew_s: float = 30.0
    grace_s: float = 0.0
    max_known: int = 10_000
    failures_per_s: float = 20.0

    def __post_init__(self) -> None:
        _check_cluster(self.cluster)
        for name, most in (("skew_s", 3600.0), ("grace_s", 7 * 86_400.0)):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise ConfigurationError(
                    f"{name} {value!r} is not valid: use 0 to {most:g} seconds"
                )
        if self.max_known < 1 or not 1 <= self.failures_per_s < inf:
            raise ConfigurationError(
                f"max_known {self.max_known!r} and failures_per_s {self.failures_per_s!r} must be "
                "1 or more"
            )


def _check_cluster(name: str) -> None:
    if not (0 < len(name) <= 128 and name.isprintable()):
        raise ConfigurationError(
            f"the cluster's name {name!r} is not valid: use 1 to 128 printable characters"
        )
