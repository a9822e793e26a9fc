"""Which worker gets the next request: pure state machines that are given the time and chance."""

from fingerpost.client.routing.config import RoutingConfig
from fingerpost.client.routing.fleet import Fleet, Pause, Pick
from fingerpost.client.routing.policy import Candidate, Policy
from fingerpost.client.routing.power_of_two import PowerOfTwo
from fingerpost.client.routing.round_robin import RoundRobin
from fingerpost.client.routing.worker import Outcome, Worker

__all__ = [
    "Candidate",
    "Fleet",
    "Outcome",
    "Pause",
    "Pick",
    "Policy",
    "PowerOfTwo",
    "RoundRobin",
    "RoutingConfig",
    "Worker",
]
