"""What is simulated, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from fingerpost.client.routing import RoutingConfig

__all__ = ["Event", "Result", "Scenario"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """At `at_s` a worker's speed is multiplied by `speed`, and what it does changes.

    `mode` is one of up, refusing (its port is closed), failing (an error after 1 ms), leaving
    (off the list) and joining (on it; a worker that joins is not there before).
    """

    at_s: float
    worker: int
    mode: str = "up"
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is simulated; times in seconds, sizes in megabytes.

    `load` is the offered share of the nominal capacity (the sum of slots x speed / service_s), or
    what it is at the start and end of a ramp. With `at_once` there is no rate: each client has so
    many images under way, and the next follows each answer (a closed loop).

    With `steady` all images of a size take as long, instead of as their distribution has it. With
    `batch_s` a worker runs up to `slots` images at once, which takes the first figure and, for
    each, the second.
    """

    clients: int = 1
    speeds: Sequence[float] = (1.0,) * 4
    slots: int = 4
    service_s: float = 0.08
    load: float | tuple[float, float] = 0.7
    at_once: int = 0
    duration_s: float = 20.0
    warmup_s: float = 4.0
    steady: bool = False
    batch_s: tuple[float, float] | None = None
    rtt_s: float = 0.001
    image_mb: float = 0.5
    size_spread: float = 0.0  # sigma of a lognormal
    mb_per_s: Sequence[float] = (1000.0,)  # by worker, in turn
    link_delay_s: float = 0.0  # of what is sent to a worker while others upload there
    antagonists: Sequence[float] = ()  # speeds that machines change between
    antagonist_s: float = 5.0
    timeout_s: float = 5.0
    max_in_flight: int = 4096
    probes: bool = True
    events: Sequence[Event] = ()
    seed: int = 1
    routing: RoutingConfig = field(default_factory=RoutingConfig)


@dataclass(slots=True)
class Result:
    """What clients saw: latencies, and how many requests and attempts each worker was sent."""

    latencies: list[float] = field(default_factory=list)  # seconds; timeouts count as timeout_s
    arrivals: list[float] = field(default_factory=list)  # when each of them was born
    errors: int = 0
    retries: int = 0
    probes: int = 0
    sent: list[list[float]] = field(default_factory=list)  # by worker: when

    def quantile(self, share: float) -> float:
        """A latency in seconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def share(self, worker: int, after_s: float = 0.0, before_s: float = inf) -> float:
        """The part of all attempts within that time that went to `worker`."""
        counts = [sum(after_s <= at < before_s for at in each) for each in self.sent]
        return counts[worker] / max(1, sum(counts))
