"""The simulated clusters that routing is measured on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from benchmarks.routing.scenario import Event, Scenario

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BATCHES",
    "DEFAULT_WORKERS",
    "EQUAL",
    "FEW",
    "FOUR",
    "HALF_SLOW",
    "JOINING",
    "LINKS",
    "MIXED",
    "OVERLOAD",
    "POLICIES",
    "RAMP",
    "SLOWED",
    "SLOW_LINKS",
    "SLOW_LINKS_BATCHES",
    "SPREAD",
    "TESTBED",
    "TWO_SLOW",
    "default_workers",
    "few",
]

POLICIES: Final = (
    "hot-cold",
    "c3",
    "power-of-two",
    "least-loaded",
    "weighted-round-robin",
    "round-robin",
)

# As in Prequal's testbed: other programs leave a machine 1.6, 1.3 or 0.6 of its nominal speed; 1.34
# on average, which is the physical limit of the ramp.
_ANTAGONISTS: Final = (1.6, 1.6, 1.6, 1.3, 0.6)
TESTBED: Final = Scenario(
    clients=100, speeds=(1.0,) * 100, antagonists=_ANTAGONISTS, duration_s=16.0
)
RAMP: Final = Scenario(
    clients=50, speeds=(1.0,) * 50, antagonists=_ANTAGONISTS, load=(0.75, 1.74), duration_s=40.0
)
# Some workers are 2, 4 and 16 times slower than the others.
SPREAD: Final = Scenario(
    clients=10, speeds=(1.0,) * 8 + (0.5,) * 4 + (0.25,) * 2 + (1 / 16,) * 2, duration_s=40.0
)
# From a public reproduction of Prequal: 14 fast workers, 2 sixteen times slower, with one slot.
TWO_SLOW: Final = Scenario(speeds=(1.0,) * 14 + (1 / 16,) * 2, slots=1, duration_s=200.0)
# One worker that accepts eight images: four at work, and four in its queue.
OVERLOAD: Final = Scenario(
    clients=8,
    speeds=(1.0,),
    service_s=0.01,
    max_in_flight=8,
    at_once=1,
    duration_s=20.0,
    timeout_s=30.0,
)
# Where that reproduction lost to simple policies.
EQUAL: Final = Scenario(clients=4, speeds=(1.0,) * 4, duration_s=200.0)
# The workers of benchmarks/routing/real.py.
FOUR: Final = Scenario(clients=4, speeds=(8.0, 4.0, 1.0, 0.5), slots=1, duration_s=150.0)
# Half of the workers are slower.
HALF_SLOW: Final = {
    f"half {times} x slower": Scenario(
        clients=4, speeds=(1.0,) * 8 + (1 / times,) * 8, duration_s=25.0
    )
    for times in (2, 4, 16)
}
# Workers, clients and slots of some small clusters; see `few`.
FEW: Final = ((2, 1, 1), (3, 1, 8), (4, 1, 1), (4, 1, 8), (2, 4, 1), (4, 4, 1), (4, 4, 8))
# Image sizes, links and speeds all differ.
MIXED: Final = Scenario(
    clients=10,
    speeds=(1.0,) * 8 + (0.5,) * 8,
    size_spread=0.8,
    mb_per_s=(100.0, 100.0, 12.5),
    load=0.6,
    duration_s=40.0,
)
# One of four at a tenth of its speed from 20 s to 70 s.
SLOWED: Final = Scenario(
    speeds=(1.0,) * 4,
    load=0.5,
    duration_s=120.0,
    events=(Event(at_s=20.0, worker=0, speed=0.1), Event(at_s=70.0, worker=0, speed=10.0)),
)
# Small images, and a model that runs all that wait for it at once.
BATCHES: Final = Scenario(
    speeds=(1.0,) * 3,
    slots=32,
    batch_s=(0.002, 0.0015),
    steady=True,
    at_once=16,
    image_mb=0.0003,
    duration_s=12.0,
    warmup_s=0.0,
)
# Links of 20 Mbit/s are the only limit, as in the benchmark of bandwidth.
LINKS: Final = Scenario(
    clients=4,
    at_once=8,
    speeds=(1.0,) * 8,
    slots=32,
    service_s=0.001,
    steady=True,
    image_mb=0.64,
    mb_per_s=(2.5,),
    link_delay_s=0.05,
    duration_s=30.0,
    warmup_s=6.0,
    timeout_s=100.0,
)
# Each client's link of 20 Mbit/s carries 25 images a second; `load` is relative to that, with
# deadlines of 2 s. In batches an image is 0.2 s at the worker.
SLOW_LINKS: Final = Scenario(
    clients=4,
    speeds=(1.0,),
    slots=1,
    service_s=0.01,
    steady=True,
    image_mb=0.1,
    client_mb_per_s=2.5,
    timeout_s=2.0,
    duration_s=14.0,
)
SLOW_LINKS_BATCHES: Final = replace(SLOW_LINKS, slots=32, batch_s=(0.2, 0.001), service_s=0.2)
# A sixteenth worker joins fifteen.
JOINING: Final = Scenario(
    clients=4,
    speeds=(1.0,) * 16,
    duration_s=60.0,
    events=(Event(at_s=20.0, worker=0, mode="joining"),),
)


def default_workers(fixed: float, load: float, images: int = 6000, **more: Any) -> Scenario:
    """Workers of 10, 20, 80 and 160 ms an image, with default options, and four clients.

    Args:
        fixed: the part of a lone image's time that a batch takes only once: 0 for a model whose
            time is linear in the batch, as on most CPUs, 1 for a flat one.
        load: the share of the capacity.
        images: that arrive after the warm-up.
        more: other fields of the scenario.
    """
    scenario = Scenario(
        clients=4,
        speeds=(8.0, 4.0, 1.0, 0.5),
        slots=32,
        batch_s=(0.08 * fixed, 0.08 * (1 - fixed)),
        load=load,
        steady=True,
        image_mb=0.02,
    )
    scenario = replace(scenario, **more)
    return replace(scenario, duration_s=scenario.warmup_s + images / (load * scenario.capacity))


# Workers as users start them: linear, flat and between; one lane and two; equal ones; images whose
# work differs; from the first image on.
DEFAULT_WORKERS: Final[Mapping[str, Scenario]] = {
    **{
        f"{name}, {load:.0%}": default_workers(fixed, load)
        for name, fixed in (("linear", 0.0), ("half", 0.5), ("most", 0.9), ("flat", 1.0))
        for load in (0.4, 0.8)
    },
    "linear, 2 batches, 70%": default_workers(0.0, 0.7, concurrent_batches=2),
    "half, 2 batches, 70%": default_workers(0.5, 0.7, concurrent_batches=2),
    "linear, sizes, 50%": default_workers(0.0, 0.5, size_spread=0.8),
    "half, sizes, 50%": default_workers(0.5, 0.5, size_spread=0.8),
    "linear, cold, 70%": default_workers(0.0, 0.7, images=1000, warmup_s=0.0),
    "half, cold, 70%": default_workers(0.5, 0.7, images=1000, warmup_s=0.0),
    "linear, equal, 70%": default_workers(0.0, 0.7, speeds=(1.0,) * 4),
    "linear, 8 and 8, 70%": default_workers(0.0, 0.7, speeds=(4.0,) * 8 + (1.0,) * 8),
}


def few(workers: int, clients: int, slots: int) -> Scenario:
    """A cluster of few equal workers, and some 10,000 images."""
    return Scenario(
        clients=clients,
        speeds=(1.0,) * workers,
        slots=slots,
        duration_s=4.0 + 10_000 * 0.08 / (0.7 * slots * workers),
    )
