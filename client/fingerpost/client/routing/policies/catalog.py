"""Rules by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.client.routing.policies.c3 import C3
from fingerpost.client.routing.policies.hot_cold import HotCold
from fingerpost.client.routing.policies.least_loaded import LeastLoaded
from fingerpost.client.routing.policies.power_of_two import PowerOfTwo
from fingerpost.client.routing.policies.random_choice import RandomChoice
from fingerpost.client.routing.policies.round_robin import RoundRobin
from fingerpost.client.routing.policies.weighted_round_robin import WeightedRoundRobin
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client.routing.config import RoutingConfig
    from fingerpost.client.routing.policy import Policy

__all__ = ["POLICIES", "make_policy"]

POLICIES = (
    "hot-cold",
    "power-of-two",
    "least-loaded",
    "weighted-round-robin",
    "c3",
    "round-robin",
    "random",
)


def make_policy(config: RoutingConfig) -> Policy:
    """A new instance of the rule that `config.policy` names; one for each `Balancer`.

    Raises:
        ConfigurationError: there is no rule of that name.
    """
    match config.policy:
        case "hot-cold":
            return HotCold(config)
        case "power-of-two":
            return PowerOfTwo()
        case "least-loaded":
            return LeastLoaded()
        case "weighted-round-robin":
            return WeightedRoundRobin()
        case "c3":
            return C3(config)
        case "round-robin":
            return RoundRobin()
        case "random":
            return RandomChoice()
    raise ConfigurationError(f"routing policy {config.policy!r}: use one of {', '.join(POLICIES)}")
