"""The policies that can be chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.client.routing.policies.c3 import C3
from fingerpost.client.routing.policies.hot_cold import HotCold
from fingerpost.client.routing.policies.least_loaded import LeastLoaded
from fingerpost.client.routing.policies.power_of_two import PowerOfTwo
from fingerpost.client.routing.policies.random_choice import RandomChoice
from fingerpost.client.routing.policies.round_robin import RoundRobin
from fingerpost.client.routing.policies.weighted_round_robin import WeightedRoundRobin
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fingerpost.client.routing.config import PolicyFactory, RoutingConfig
    from fingerpost.client.routing.policy import Policy

__all__ = ["POLICIES", "check_policy", "make_policy"]

POLICIES: Final[Mapping[str, PolicyFactory]] = {
    "hot-cold": HotCold,
    "power-of-two": lambda _: PowerOfTwo(),
    "least-loaded": lambda _: LeastLoaded(),
    "weighted-round-robin": lambda _: WeightedRoundRobin(),
    "c3": C3,
    "round-robin": lambda _: RoundRobin(),
    "random": lambda _: RandomChoice(),
}
"""Each policy's name, and what makes one."""


def check_policy(config: RoutingConfig) -> None:
    """Raise `ConfigurationError` if `config.policy` names no policy that there is."""
    if isinstance(config.policy, str) and config.policy not in POLICIES:
        raise ConfigurationError(
            f"policy={config.policy!r}: use one of {', '.join(POLICIES)}, or a function that makes "
            "a policy"
        )


def make_policy(config: RoutingConfig) -> Policy:
    """Make the policy that `config.policy` names, or that the function there makes.

    Raises:
        ConfigurationError: there is no policy of that name, or the function returns something
            else than a policy.
    """
    check_policy(config)
    factory = config.policy
    if isinstance(factory, str):
        return POLICIES[factory](config)
    policy = factory(config)
    for method in ("pick", "reported"):
        if not callable(getattr(policy, method, None)):
            raise ConfigurationError(
                f"policy={factory!r} made {policy!r}, which has no method {method}(): return an "
                "object of a class derived from fingerpost.client.routing.Policy"
            )
    return policy
