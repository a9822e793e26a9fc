"""Routing: which worker gets the next request.

A `Balancer` has an `Endpoint` for each worker of a service, and asks a `Policy` to pick one of
those that are usable. Nothing here does I/O: time and randomness are arguments.
"""

from fingerpost.client.routing.balancer import Balancer, Pick
from fingerpost.client.routing.budget import Budget
from fingerpost.client.routing.config import (
    EjectionConfig,
    HotColdConfig,
    PolicyFactory,
    ProbingConfig,
    RetryConfig,
    RoutingConfig,
    SlowStartConfig,
)
from fingerpost.client.routing.deadline import Phase, PhaseClock
from fingerpost.client.routing.ejection import Ejection
from fingerpost.client.routing.endpoint import Endpoint
from fingerpost.client.routing.hedging import HedgeDelay
from fingerpost.client.routing.outcome import Outcome
from fingerpost.client.routing.policies.c3 import C3
from fingerpost.client.routing.policies.catalog import POLICIES, make_policy
from fingerpost.client.routing.policies.hot_cold import HotCold
from fingerpost.client.routing.policies.least_loaded import LeastLoaded
from fingerpost.client.routing.policies.power_of_two import PowerOfTwo
from fingerpost.client.routing.policies.random_choice import RandomChoice
from fingerpost.client.routing.policies.round_robin import RoundRobin
from fingerpost.client.routing.policies.weighted_round_robin import WeightedRoundRobin
from fingerpost.client.routing.policy import Candidate, Policy
from fingerpost.client.routing.probing import Probing
from fingerpost.client.routing.retry_at import RetryAt

__all__ = [
    "C3",
    "POLICIES",
    "Balancer",
    "Budget",
    "Candidate",
    "Ejection",
    "EjectionConfig",
    "Endpoint",
    "HedgeDelay",
    "HotCold",
    "HotColdConfig",
    "LeastLoaded",
    "Outcome",
    "Phase",
    "PhaseClock",
    "Pick",
    "Policy",
    "PolicyFactory",
    "PowerOfTwo",
    "Probing",
    "ProbingConfig",
    "RandomChoice",
    "RetryAt",
    "RetryConfig",
    "RoundRobin",
    "RoutingConfig",
    "SlowStartConfig",
    "WeightedRoundRobin",
    "make_policy",
]

_RENAMED = {
    "AdaptiveLimit": "fingerpost.client.streaming.limit.AdaptiveLimit",
    "Fleet": "Balancer",
    "Pause": "RetryAt",
    "Worker": "Endpoint",
}


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        raise ImportError(f"{__name__}.{name} is called {_RENAMED[name]} now")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
