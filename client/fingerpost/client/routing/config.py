"""The settings of routing, in one group for each part of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from fingerpost.basics.backoff import Backoff
from fingerpost.basics.renames import renamed_fields
from fingerpost.client.routing.policy import Policy
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from random import Random

__all__ = [
    "EjectionConfig",
    "HotColdConfig",
    "PolicyFactory",
    "ProbingConfig",
    "RetryConfig",
    "RoutingConfig",
    "SlowStartConfig",
]


def _check(
    config: Any,
    *,
    may_be_zero: frozenset[str] | set[str] = frozenset(),
    shares: frozenset[str] | set[str] = frozenset(),
) -> None:
    """Raise ConfigurationError unless all fields are positive numbers, and shares at most 1."""
    for field in fields(config):
        value = getattr(config, field.name)
        least = "0 or more" if field.name in may_be_zero else "above 0"
        zero = value == 0 and field.name in may_be_zero
        if not isinstance(value, (int, float)) or not (zero or 0 < value < inf):
            raise _invalid(config, field.name, f"a number {least}")
        if field.name in shares and value > 1:
            raise _invalid(config, field.name, f"a share, {least} and at most 1")


def _invalid(config: object, name: str, remedy: str) -> ConfigurationError:
    value = getattr(config, name)
    return ConfigurationError(f"{type(config).__name__}: {name}={value!r}: use {remedy}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HotColdConfig:
    """Settings of the policy `hot-cold`, which `HotCold` describes.

    Attributes:
        hot_quantile: a worker above this quantile of the reported loads is hot. More lets latency
            decide among more workers, and clients crowd on the fastest; less goes by load alone.
            0.84 is Prequal's.
        cost_tolerance: costs within this factor of the least count as equal, and load decides
            between them. More spreads better among like workers; above the true differences it
            uses slow workers. 1.25 covers the noise in the latency of equal workers.
        outlier_factor: a worker more than this many times as slow as two thirds of the workers is
            an outlier: its cost grows by the square beyond that, so that it gets images only
            while the others have full queues. More uses slow workers sooner when the others are
            busy; 2 or less leaves out workers that are merely smaller.
        exploration_rate: this share of the requests goes to the idle worker that was used longest
            ago, because a worker without requests has no new latency to report. More notices a
            recovery sooner; above 0.01 slow workers show in the 99th percentile. 0 turns it off,
            for workers that never recover by themselves.
        exploration_interval_s: least seconds between two such requests. For a worker that was in
            use for a shorter time than this, that time counts instead. More costs fewer slow
            requests, and notices a recovery later.
    """

    hot_quantile: float = 0.84
    cost_tolerance: float = 1.25
    outlier_factor: float = 4.0
    exploration_rate: float = 1 / 256
    exploration_interval_s: float = 5.0

    def __post_init__(self) -> None:
        _check(self, may_be_zero={"exploration_rate"}, shares={"hot_quantile", "exploration_rate"})
        for name in ("cost_tolerance", "outlier_factor"):
            if getattr(self, name) < 1:
                raise _invalid(self, name, "a factor of 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbingConfig:
    """When workers are asked for a load report, and for how long a report counts.

    Attributes:
        probes_per_request: load reports asked for with each request, of workers drawn at random,
            less likely ones that preceded it. A fraction is carried over. More is better informed,
            and costs a worker 0.1 to 0.2 ms each. 2 keeps a client informed that sends few.
        max_probes_per_s: upper limit of the probes of one client in a second: what probing may
            cost.
        worker_min_interval_s: a worker whose last report is not older than this is not probed.
            More saves probes. 0 probes regardless.
        max_rtt_s: an answer to a probe that took longer than this is discarded, because it is
            out of date. Links full of uploads delay an answer by some 50 ms.
        idle_timeout_s: probing stops this long after the last request.
        sync_threshold_rtts: a request expected to take more than this many round trips of a probe
            is preceded by 3 or 4 probes, and waits for all but one answer (Prequal's synchronous
            mode). More waits less often, on older reports.
        sync_timeout_s: how long such a request waits at most.
        pool_size: up to this many workers the freshest report of each is used; beyond that, a
            pool of this many reports (Prequal's probe pool, and its size). More chooses better
            and takes 0.3 us more of every pick for each.
        report_max_age_s: a report that is older is not used. More keeps clients informed that
            send few requests, and makes many clients follow the same old report.
        report_min_interval_s: of the reports that come with a worker's answers, one is read in
            this time. Reading takes 12 us, and the client counts its own requests in between. 0
            reads all.
    """

    probes_per_request: float = 2.0
    max_probes_per_s: float = 200.0
    worker_min_interval_s: float = 0.01
    max_rtt_s: float = 0.5
    idle_timeout_s: float = 5.0
    sync_threshold_rtts: float = 20.0
    sync_timeout_s: float = 0.01
    pool_size: int = 16
    report_max_age_s: float = 1.0
    report_min_interval_s: float = 0.005

    def __post_init__(self) -> None:
        _check(self, may_be_zero={"worker_min_interval_s", "report_min_interval_s"})


@dataclass(frozen=True, slots=True, kw_only=True)
class EjectionConfig:
    """When a worker is left out (Envoy: outlier detection), and for how long.

    Attributes:
        refused_base_ejection_s: how long a worker is left out after it refused a connection;
            doubled each time without a success in between. More spares requests a vain attempt;
            less notices a restarted worker sooner.
        refused_max_ejection_s: upper limit of that. Short, because being refused again costs one
            round trip and no upload.
        base_ejection_s: the same after other failures.
        max_ejection_s: upper limit of that; Envoy's. More spares requests the trial that ends
            each ejection.
        consecutive_failures: this many failures in a row, other than refused connections, eject a
            worker; 5 as in Envoy and Finagle. Fewer eject because of a single bad image; more let
            a worker fail for longer.
        min_success_rate: a worker that succeeds less often than this is ejected too. More ejects
            workers that still answer most requests.
        success_rate_window_s: over this time. More needs less traffic, and remembers for longer.
        success_rate_min_requests: if there were this many requests in it. Fewer decide by chance.
        max_ejected_share: if more than this share of the workers failed, these ejections are
            ignored, because the fault is probably elsewhere (Envoy: panic threshold). Less
            ignores them sooner.
        suspect_s: how long the policy is told that a worker has failed (`Candidate.suspect_until`).
            More keeps requests away from it for longer.
        stale_ejection_s: how long a worker is left out that is not what its entry in the registry
            says: another process has its address, or it does not serve the model. It is used again
            as soon as its entry changes. More spares requests the trial that ends it, which is
            refused by its headers; less finds a worker sooner whose entry never changes.
        drain_s: how long a worker that reported that it is draining is left out before one trial.
            The registry normally removes it long before that.
        default_retry_after_s: how long an overloaded worker that sent no `Retry-After` is left out.
        max_retry_after_s: a longer `Retry-After` counts as this.
    """

    refused_base_ejection_s: float = 1.0
    refused_max_ejection_s: float = 30.0
    base_ejection_s: float = 5.0
    max_ejection_s: float = 300.0
    consecutive_failures: int = 5
    min_success_rate: float = 0.8
    success_rate_window_s: float = 30.0
    success_rate_min_requests: int = 5
    max_ejected_share: float = 0.5
    suspect_s: float = 5.0
    stale_ejection_s: float = 30.0
    drain_s: float = 10.0
    default_retry_after_s: float = 0.1
    max_retry_after_s: float = 30.0

    def __post_init__(self) -> None:
        _check(self, shares={"min_success_rate", "max_ejected_share"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStartConfig:
    """How a new worker gets its share of the requests.

    Attributes:
        window_s: a new worker gets its full share after this time. More spares cold caches; less
            uses new capacity sooner.
        min_share: the part of its full share that it starts with, after one trial.
    """

    window_s: float = 30.0
    min_share: float = 0.1

    def __post_init__(self) -> None:
        _check(self, shares={"min_share"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryConfig:
    """How often one image may be sent, and how much all retries and hedges may cost.

    Attributes:
        max_attempts: attempts for one request, hedges included.
        budget_share: retries and hedges, as a share of the requests of the last `budget_ttl_s`.
            More rides out more failures, and multiplies the load of a cluster in trouble.
        budget_min_per_s: retries and hedges allowed besides in each second, for clients with
            little traffic.
        budget_ttl_s: how long a request counts towards that share. More allows longer bursts of
            retries.
        budget_bytes_share: bytes uploaded by retries and hedges, as a share of the bytes uploaded
            in that time. More fills the links of a cluster in trouble.
        backoff_base_s: upper limit of the first wait once every worker was tried; doubled each
            round, and drawn by full jitter (AWS Architecture Blog, 'Exponential Backoff And
            Jitter').
        backoff_max_s: upper limit of all such waits. More spares a cluster in trouble; less
            returns sooner.
    """

    max_attempts: int = 3
    budget_share: float = 0.2
    budget_min_per_s: float = 1.0
    budget_ttl_s: float = 10.0
    budget_bytes_share: float = 0.1
    backoff_base_s: float = 0.05
    backoff_max_s: float = 2.0

    def __post_init__(self) -> None:
        _check(self, may_be_zero={"budget_share", "budget_bytes_share"})

    def backoff_s(self, rounds: int, rng: Random) -> float:
        """Seconds to wait after `rounds` earlier waits of the same request (full jitter)."""
        backoff = Backoff(base_s=self.backoff_base_s, cap_s=self.backoff_max_s)
        return backoff.delay_s(rounds, rng)


@renamed_fields(
    quantile="hot_cold.hot_quantile",
    tolerance="hot_cold.cost_tolerance",
    far="hot_cold.outlier_factor",
    explore="hot_cold.exploration_rate",
    explore_s="hot_cold.exploration_interval_s",
    pool_size="probing.pool_size",
    report_age_s="probing.report_max_age_s",
    report_every_s="probing.report_min_interval_s",
    probes_per_request="probing.probes_per_request",
    probes_per_s="probing.max_probes_per_s",
    probe_fresh_s="probing.worker_min_interval_s",
    probe_timeout_s="probing.max_rtt_s",
    probe_idle_s="probing.idle_timeout_s",
    probe_ahead="probing.sync_threshold_rtts",
    probe_wait_s="probing.sync_timeout_s",
    refused_base_s="ejection.refused_base_ejection_s",
    refused_cap_s="ejection.refused_max_ejection_s",
    eject_base_s="ejection.base_ejection_s",
    eject_cap_s="ejection.max_ejection_s",
    failures_in_a_row="ejection.consecutive_failures",
    success_share="ejection.min_success_rate",
    window_s="ejection.success_rate_window_s",
    window_requests="ejection.success_rate_min_requests",
    eject_share="ejection.max_ejected_share",
    wary_s="ejection.suspect_s",
    drain_s="ejection.drain_s",
    busy_s="ejection.default_retry_after_s",
    busy_cap_s="ejection.max_retry_after_s",
    ramp_s="slow_start.window_s",
    ramp_floor="slow_start.min_share",
    attempts="retries.max_attempts",
    budget_share="retries.budget_share",
    budget_per_s="retries.budget_min_per_s",
    budget_ttl_s="retries.budget_ttl_s",
    budget_bytes_share="retries.budget_bytes_share",
    backoff_base_s="retries.backoff_base_s",
    backoff_cap_s="retries.backoff_max_s",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingConfig:
    """How a client routes; docs/routing.md shows the measurements behind the defaults.

    ::

        RoutingConfig(
            hot_cold=HotColdConfig(exploration_rate=0),
            retries=RetryConfig(max_attempts=5),
        )

    Attributes:
        policy: which worker gets a request: the name of a policy (`POLICIES`), or a function that
            makes one: it is called with this config, once for each service, and returns a
            `Policy`.
        hot_cold: settings of the policy `hot-cold`.
        probing: when workers are asked for a load report, and for how long a report counts.
        ejection: when a worker is left out, and for how long.
        slow_start: how a new worker gets its share.
        retries: how often one image may be sent, and what all retries and hedges may cost.
        subset_size: of more workers than this, a client among many (`ClientConfig.client_id`)
            uses this many. More balances better; less keeps fewer connections.
    """

    policy: str | PolicyFactory = "hot-cold"
    hot_cold: HotColdConfig = HotColdConfig()
    probing: ProbingConfig = ProbingConfig()
    ejection: EjectionConfig = EjectionConfig()
    slow_start: SlowStartConfig = SlowStartConfig()
    retries: RetryConfig = RetryConfig()
    subset_size: int = 64

    def __post_init__(self) -> None:
        if not (isinstance(self.policy, str) or callable(self.policy)):
            raise _invalid(self, "policy", "a policy's name, or a function that makes a policy")
        for name, kind in _GROUPS.items():
            if not isinstance(getattr(self, name), kind):
                raise _invalid(self, name, f"a {kind.__name__}")
        if not 0 < self.subset_size < inf:
            raise _invalid(self, "subset_size", "a number above 0")


PolicyFactory: TypeAlias = Callable[[RoutingConfig], Policy]
"""Makes a policy: a function, or a class whose constructor takes a `RoutingConfig`."""

_GROUPS = {
    "hot_cold": HotColdConfig,
    "probing": ProbingConfig,
    "ejection": EjectionConfig,
    "slow_start": SlowStartConfig,
    "retries": RetryConfig,
}
