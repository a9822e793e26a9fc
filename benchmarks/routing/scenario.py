"""A scenario to simulate, and its result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from fingerpost.client.routing import RoutingConfig

if TYPE_CHECKING:
    from random import Random

__all__ = ["Event", "Result", "Scenario"]

_CUT_MEAN: Final = 1.0833  # of max(0, N(1, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A change of one worker.

    Attributes:
        at_s: when it happens.
        worker: which worker, from 0.
        mode: what the worker does from then on: "up" (it answers), "refusing" (its port is
            closed), "failing" (an error after 1 ms), "leaving" (it is taken off the list) or
            "joining" (it is put on the list; it is not listed before).
        speed: the factor by which its speed changes.
    """

    at_s: float
    worker: int
    mode: str = "up"
    speed: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster, its clients, and what happens; times in seconds, sizes in megabytes.

    Attributes:
        speeds: of each worker; 1 is nominal.
        slots: images that a worker works on at once.
        service_s: the average time of an image at nominal speed.
        load: the offered share of the nominal capacity (the sum of slots x speed / service_s), or
            that share at the start and the end of a ramp.
        at_once: for a closed loop: so many images of each client are in flight, and each answer is
            followed by the next image. `load` is not used then.
        warmup_s: images that arrive before this are not in the result.
        steady: all images of a size take the same time, instead of a random one.
        batch_s: a worker is one of default options: `Batcher` makes batches of up to `slots` images
            and measures what the worker reports. A batch takes the first figure, and the second for
            each image, times its work.
        concurrent_batches: batches that such a worker runs at once, each at full speed.
        size_spread: sigma of a lognormal distribution of image sizes; 0 for equal ones.
        mb_per_s: bandwidth of the workers' links, in turn.
        client_mb_per_s: bandwidth of each client's link, which is then the only one; 0 for none. An
            upload there ends at its deadline.
        link_delay_s: the delay of a message to a worker whose link uploads are using.
        antagonists: speeds that each machine changes between, as other programs use it.
        antagonist_s: the average time between such changes.
        max_in_flight: requests at one worker beyond which it answers that it is overloaded.
        probes: whether clients probe.
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
    concurrent_batches: int = 1
    rtt_s: float = 0.001
    image_mb: float = 0.5
    size_spread: float = 0.0
    mb_per_s: Sequence[float] = (1000.0,)
    client_mb_per_s: float = 0.0
    link_delay_s: float = 0.0
    antagonists: Sequence[float] = ()
    antagonist_s: float = 5.0
    timeout_s: float = 5.0
    max_in_flight: int = 4096
    probes: bool = True
    events: Sequence[Event] = ()
    seed: int = 1
    routing: RoutingConfig = field(default_factory=RoutingConfig)

    @property
    def capacity(self) -> float:
        """Images a second that all workers answer at nominal speed."""
        if self.batch_s is None:
            return sum(self.speeds) * self.slots / self.service_s
        fixed, each = self.batch_s
        return sum(self.speeds) * self.concurrent_batches * self.slots / (fixed + each * self.slots)

    def draw(self, rng: Random) -> tuple[float, float]:
        """Draw an image: its size relative to the average, and its seconds at nominal speed."""
        size = rng.lognormvariate(0.0, self.size_spread) if self.size_spread else 1.0
        work = 1.0 if self.steady else max(0.01, rng.gauss(1.0, 1.0)) / _CUT_MEAN
        return size, work * (self.service_s * size)

    def batch_time_s(self, works: Sequence[float]) -> float:
        """Seconds of a batch at nominal speed; each image is the average one times its work."""
        assert self.batch_s is not None
        fixed, each = self.batch_s
        return fixed + each * sum(works) / self.service_s


@dataclass(slots=True)
class Result:
    """What the clients measured.

    Attributes:
        latencies: of the requests after the warm-up, in seconds; a timeout counts as `timeout_s`.
        arrivals: when each of these requests arrived.
        errors: how many of them were not answered.
        retries: attempts after the first, of all requests.
        probes: load reports that were asked for.
        sent: for each worker, when it was sent an attempt.
    """

    latencies: list[float] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    errors: int = 0
    retries: int = 0
    probes: int = 0
    sent: list[list[float]] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """The latency, in seconds, that this share of the requests stays below."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def share(self, worker: int, after_s: float = 0.0, before_s: float = inf) -> float:
        """The share of all attempts in a period that went to `worker`."""
        counts = [sum(after_s <= at < before_s for at in each) for each in self.sent]
        return counts[worker] / max(1, sum(counts))
