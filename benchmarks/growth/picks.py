"""How long a pick takes, by the size of the fleet: no sockets, production's routing classes."""

from __future__ import annotations

import time
from random import Random
from statistics import median

from benchmarks.growth.fleet import SERVICE, instance
from fingerpost.client.routing import Balancer, Outcome, Pick, RoutingConfig, make_policy
from fingerpost.registry import LoadReport, ModelReference, Snapshot, WorkerState

__all__ = ["pick_us"]

_MODEL = ModelReference(SERVICE)
_STEP_S = 0.001


def pick_us(workers: int, picks: int = 5_000) -> float:
    """Microseconds of a `Balancer.pick`, the median, while requests end and load reports come.

    A thousand images a second, two probes answered with each, up to 32 requests under way.
    """
    config, rng = RoutingConfig(), Random(1)
    balancer = Balancer(make_policy(config), config)
    entries = tuple(instance(number) for number in range(workers))
    balancer.update(
        Snapshot(service=SERVICE, instances=entries, known=True, index=1, taken_at=0.0), now=0.0
    )
    under_way: list[Pick] = []
    spent_ns = []
    for step in range(picks):
        now = step * _STEP_S
        for endpoint in balancer.to_probe(_MODEL, 2, now, rng):
            report = LoadReport(
                rif=rng.randrange(8), slots=4, state=WorkerState.READY, seq=step + 1,
                boot_id=endpoint.instance.boot_id, latency_per_cost_s=rng.uniform(0.02, 0.2),
            )  # fmt: skip
            balancer.reported(endpoint, report, now, probed=True)
        began = time.perf_counter_ns()
        pick = balancer.pick(_MODEL, tried=(), now=now, rng=rng)
        spent_ns.append(time.perf_counter_ns() - began)
        if not isinstance(pick, Pick):
            raise TypeError(f"nobody to pick of {workers} workers: {pick!r}")
        under_way.append(pick)
        if len(under_way) == 32:
            under_way.pop(0).release(Outcome.ANSWERED, now=now, rng=rng, sent_mb=0.6)
    return median(spent_ns) / 1000
