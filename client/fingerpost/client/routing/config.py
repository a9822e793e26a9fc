"""The numbers that routing goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.registry.backoff import Backoff

if TYPE_CHECKING:
    from random import Random

__all__ = ["RoutingConfig"]

_SHARES = ("quantile", "explore", "success_share", "eject_share", "ramp_floor")
_MAY_BE_ZERO = (
    *("explore", "report_every_s", "probe_fresh_s"),
    *("budget_share", "budget_bytes_share"),
)


class RoutingConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Every number of routing; docs/routing.md shows the sweeps that the defaults come from.

    Choice (`hot_cold`):
        policy: the rule's name, see `make_policy`.
        quantile: a worker above this quantile of the reported loads is hot. More lets latency
            decide among more workers, and clients crowd on the fastest; less goes by load alone.
        tolerance: costs within this factor (`HotCold`) count as equal, and load decides. More
            spreads better among like workers; beyond the true differences, slow ones are used.
        far: a worker more than so many times as slow as two thirds of them is left to full queues
            alone: its cost grows by the square beyond that. More uses slow workers sooner when the
            others are busy; 2 or less leaves out workers that are merely smaller.
        explore: this share of requests goes to the idle worker that was asked longest ago, whose
            latency nobody can know otherwise. More notices a recovery sooner; above 0.01 the
            slow workers show in p99.
        explore_s: and at most once in so many seconds; sooner for one that is new to this client.
        pool_size: up to so many workers each one's freshest report is used; past it, a pool of so
            many reports. More chooses better and costs time in every pick (0.3 us each).
        report_age_s: a report counts no longer than this. More keeps slow clients informed, and
            makes many clients follow the same old news.
        report_every_s: the reports that come with a worker's answers are read no more often.
            Reading one takes 12 us, and between two the client counts for itself.

    Probing (`probing`):
        probes_per_request: load reports asked for with each request, at random workers. More is
            better informed, at 0.1 to 0.2 ms of a worker's time each.
        probes_per_s: no more than this for one client; a limit on what probing may cost.
        probe_fresh_s: a worker whose last report is no older is not asked. More saves probes.
        probe_timeout_s: a probe that takes longer is dropped: its news would be old. Links that
            uploads have filled delay the answers by some 50 ms.
        probe_idle_s: probing stops so long after the last request.
        probe_ahead: an upload of more than so many probe round trips is worth probing first.
        probe_wait_s: and waiting so long for the answers, at most.

    Ejection (`ejection`):
        refused_base_s: how long a worker is left out after it refused a connection. More spares
            requests a useless attempt; less notices a restarted worker sooner.
        refused_cap_s: the longest of these, reached by doubling; short, because being refused
            again costs one round trip and no upload.
        eject_base_s: how long after other failures, doubled each time without a success between.
        eject_cap_s: the longest ejection (Envoy's). More spares more requests their trial.
        failures_in_a_row: failures other than a refused connection that eject a worker; 5 as in
            Finagle and Envoy. Fewer eject on a single bad image; more let it fail for longer.
        success_share: a worker that succeeds less often than this over `window_s` is ejected.
        window_s: the window of that share. More needs less traffic, and remembers for longer.
        window_requests: requests in it below which nothing is concluded.
        eject_share: at most this share of the workers is ejected for failures; beyond it the
            fault is more likely elsewhere, and ejection is ignored ('panic mode').
        wary_s: how long after a failure a worker is not called cold.
        drain_s: how long a worker that said it is draining is left out before one trial. The
            registry normally removes it long before that.
        busy_s: how long an overloaded worker that sent no `Retry-After` is left out.
        busy_cap_s: the longest `Retry-After` that is believed.

    Slow start (`slow_start`):
        ramp_s: a new worker reaches its full share after so long. More spares cold caches; less
            uses new capacity sooner.
        ramp_floor: the share it starts with, after one trial.

    Retries and hedges (`budget`):
        attempts: at most so many for one request, hedges included.
        budget_share: retries and hedges, as a share of the requests of the last `budget_ttl_s`.
            More rides out more failures, and multiplies the load of a cluster in trouble.
        budget_per_s: and so many a second besides, for clients with little traffic.
        budget_ttl_s: how long a request's share of a retry can be used.
        budget_bytes_share: extra bytes uploaded, as a share of the bytes uploaded in that time.
        backoff_base_s: the longest first wait once every worker was tried, doubled each round
            and drawn by full jitter (AWS Architecture Blog, 'Exponential Backoff And Jitter').
        backoff_cap_s: the longest such wait. More spares a cluster in trouble; less returns
            sooner.

    Subsets (`subset`):
        subset_size: past so many workers a client among many uses this many of them. More
            balances better; less keeps fewer connections.
    """

    policy: str = "hot-cold"
    quantile: float = 0.84
    tolerance: float = 1.25
    far: float = 4.0
    explore: float = 1 / 256
    explore_s: float = 5.0
    pool_size: int = 16
    report_age_s: float = 1.0
    report_every_s: float = 0.005

    probes_per_request: float = 2.0
    probes_per_s: float = 200.0
    probe_fresh_s: float = 0.01
    probe_timeout_s: float = 0.5
    probe_idle_s: float = 5.0
    probe_ahead: float = 20.0
    probe_wait_s: float = 0.01

    refused_base_s: float = 1.0
    refused_cap_s: float = 30.0
    eject_base_s: float = 5.0
    eject_cap_s: float = 300.0
    failures_in_a_row: int = 5
    success_share: float = 0.8
    window_s: float = 30.0
    window_requests: int = 5
    eject_share: float = 0.5
    wary_s: float = 5.0
    drain_s: float = 10.0
    busy_s: float = 0.1
    busy_cap_s: float = 30.0

    ramp_s: float = 30.0
    ramp_floor: float = 0.1

    attempts: int = 3
    budget_share: float = 0.2
    budget_per_s: float = 1.0
    budget_ttl_s: float = 10.0
    budget_bytes_share: float = 0.1
    backoff_base_s: float = 0.05
    backoff_cap_s: float = 2.0

    subset_size: int = 64

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name == "policy" or (value == 0 and name in _MAY_BE_ZERO):
                continue
            if not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value}: use a number above 0")
            if name in _SHARES and value > 1:
                raise ConfigurationError(f"{name}={value}: use a share of at most 1")
        for name in ("tolerance", "far"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name}={getattr(self, name)}: use a factor of 1 or more")

    def backoff_s(self, rounds: int, rng: Random) -> float:
        """Seconds to wait after `rounds` earlier waits of the same request (full jitter)."""
        backoff = Backoff(base_s=self.backoff_base_s, cap_s=self.backoff_cap_s)
        return backoff.delay_s(rounds, rng)
