"""Balancers of a few named workers, whose requests end as a test says."""

from __future__ import annotations

import random

from fingerpost.client.routing import (
    Balancer,
    Outcome,
    Pick,
    PowerOfTwo,
    RoutingConfig,
)
from fingerpost.registry import (
    Instance,
    LoadReport,
    ModelInfo,
    ModelReference,
    Snapshot,
    WorkerState,
)

__all__ = [
    "DIGITS",
    "RNG",
    "balancer_of",
    "instance",
    "pick",
    "report",
    "send",
    "snapshot",
    "usable",
]

DIGITS = ModelReference.parse("digits")
RNG = random.Random(7)


def instance(name: str, *, boot_id: int = 1, weight: int = 1, port: int = 80, version: str = "1"):
    return Instance(
        id=name,
        service="digits",
        host="10.0.0.1",
        ports={"http": port},
        models=(ModelInfo(name="digits", versions=(version,)),),
        weight=weight,
        boot_id=boot_id,
    )


def snapshot(*instances: Instance) -> Snapshot:
    return Snapshot(service="digits", instances=instances, known=True, index=1, taken_at=0.0)


def balancer_of(*instances: Instance | str, policy=None) -> Balancer:
    balancer = Balancer(policy or PowerOfTwo(), RoutingConfig())
    made = (instance(each) if isinstance(each, str) else each for each in instances)
    balancer.update(snapshot(*made), 0.0)
    return balancer


def report(seq: int = 1, state: WorkerState = WorkerState.READY, boot_id: int = 1) -> LoadReport:
    return LoadReport(rif=0, slots=1, state=state, boot_id=boot_id, seq=seq)


def pick(balancer: Balancer, now: float = 0.0, *, but: set[str] | None = None) -> Pick:
    made = balancer.pick(DIGITS, tried=but or set(), now=now, rng=RNG)
    assert isinstance(made, Pick)
    return made


def send(balancer: Balancer, to: str, outcome: Outcome, now: float = 0.0, **more) -> None:
    """Send one request to a worker of that name: the others count as tried."""
    others = {each.id for each in balancer.endpoints} - {to}
    pick(balancer, now, but=others).release(outcome, now=now, rng=RNG, **more)


def usable(balancer: Balancer, now: float) -> set[str]:
    """The ids of the workers that may be picked, found by many picks."""
    found = set()
    for _ in range(200):
        made = balancer.pick(DIGITS, tried=(), now=now, rng=RNG)
        if isinstance(made, Pick):
            found.add(made.endpoint.id)
            made.release(Outcome.ABANDONED, now=now, rng=RNG)
    return found
