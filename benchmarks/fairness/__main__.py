"""`python -m benchmarks.fairness`: what a tenant at ten times its share does to the others.

Seeded; the figures are simulated and do not depend on the machine. The last part measures what the
fair queue costs here: an image's time in the batcher with several tenants, less that with one.
"""

from __future__ import annotations

import argparse
import time
from typing import Final

from benchmarks.fairness.simulation import (
    MAX_BATCH,
    WORKERS,
    Outcomes,
    Tenant,
    capacity,
    run_s,
    simulate,
)
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow

_TENANTS: Final = 10
_WARM_UP_S: Final = 2.0
_ROUNDS: Final = 30
_IMAGES: Final = 4000


def quantile_ms(outcomes: dict[str, Outcomes], share: float, *, without: str) -> float:
    """A quantile of the milliseconds to the answer, of all tenants but one."""
    found = sorted(
        latency for name, each in outcomes.items() if name != without for latency in each.latencies
    )
    return 1000 * found[int(share * (len(found) - 1))]


def greedy(seconds: float, load: float) -> None:
    """One tenant at its share, and at ten times that, with and without fair queues."""
    share = capacity() / _TENANTS
    others = [Tenant(name=f"t{number}", rate=load * share) for number in range(_TENANTS - 1)]
    print(f"{WORKERS} workers, 100 clients; the others at {load:g} of their shares")
    for title, rate, fair in (
        ("greedy at its share", share, True),
        ("greedy at 10 x", 10 * share, True),
        ("greedy at 10 x, no fair queue", 10 * share, False),
    ):
        found = simulate(
            [*others, Tenant(name="greedy", rate=rate)],
            seconds=_WARM_UP_S + seconds,
            warm_up_s=_WARM_UP_S,
            fair=fair,
        )
        images = sum(len(each.latencies) for each in found.values())
        failed = sum(each.failed for name, each in found.items() if name != "greedy")
        print(
            f"  {title}: others p50 {quantile_ms(found, 0.5, without='greedy'):.0f} ms, p99 "
            f"{quantile_ms(found, 0.99, without='greedy'):.0f} ms, {failed} failed; "
            f"{images / seconds:,.0f} images/s of {capacity():,.0f}"
        )


def weights(seconds: float) -> None:
    """Shares of tenants that all have more images than their share."""
    tenants = [
        Tenant(name=f"weight {weight}", at_once=100, weight=weight, clients=8)
        for weight in (1, 2, 4)
    ]
    found = simulate(tenants, seconds=_WARM_UP_S + seconds, warm_up_s=_WARM_UP_S)
    images = sum(len(each.latencies) for each in found.values())
    for each in tenants:
        got = len(found[each.name].latencies) / images * 7 / each.weight
        print(f"  {each.name}: {got:.3f} of its share")
    print(f"  {images / seconds:,.0f} images/s of {capacity():,.0f}")


def classes(seconds: float) -> None:
    """Interactive work at 0.4 of the capacity, alone and beside as much batch work as there is."""
    interactive = Tenant(name="interactive", rate=0.4 * capacity(), clients=60)
    batch = Tenant(name="batch", at_once=40, clients=16, rank=1)
    for title, tenants in (("alone", [interactive]), ("beside batch", [interactive, batch])):
        found = simulate(tenants, seconds=_WARM_UP_S + seconds, warm_up_s=_WARM_UP_S)
        images = len(found["batch"].latencies) if batch in tenants else 0
        print(
            f"  {title}: interactive p99 {quantile_ms(found, 0.99, without='batch'):.0f} ms; "
            f"batch {images / seconds:,.0f} images/s"
        )
    print(f"  a batch takes {1000 * run_s(MAX_BATCH):.0f} ms")


def per_image_us(flows: list[Flow], *, decoded: bool) -> float:
    """Processor time of an image in a batcher in which 64 wait, in microseconds.

    Args:
        decoded: the images need no decoder; otherwise they pass two queues.
    """
    queue: Batcher[int] = Batcher(BatchingConfig(max_batch=MAX_BATCH), max_preparing=2)
    for number in range(64):
        flow = flows[number % len(flows)]
        queue.submit(number, cost=0.1, now=0.0, flow=flow, prepared=decoded)
    began, done, now = time.process_time(), 0, 0.0
    while done < _IMAGES:
        for _ in range(0 if decoded else MAX_BATCH):
            if (pending := queue.prepare()) is not None:
                queue.prepared(pending, now=now, took_s=0.005)
        batch = queue.poll(now)
        if batch is None:
            raise RuntimeError("images wait and none runs")
        now += 0.01
        queue.complete(now)
        for number, pending in enumerate(batch.items):
            queue.submit(number, cost=0.1, now=now, flow=pending.flow, prepared=decoded)
        done += len(batch.items)
    return (time.process_time() - began) / done * 1e6


def cost() -> None:
    """Microseconds of the fair queue for an image: the least of several rounds, in turn."""
    one, many = [DEFAULT_FLOW], [Flow(str(number)) for number in range(16)]
    for title, decoded in (("arrays", True), ("images that are decoded", False)):
        alone, shared = (
            min(each)
            for each in zip(
                *(
                    [per_image_us(flows, decoded=decoded) for flows in (one, many)]
                    for _ in range(_ROUNDS)
                ),
                strict=True,
            )
        )
        print(
            f"  {title}: one tenant {alone:.1f} us, 16 tenants {shared:.1f} us: "
            f"{shared - alone:.1f} us more"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="simulated seconds")
    parser.add_argument("--load", type=float, default=0.8, help="of the others' shares")
    arguments = parser.parse_args()
    print("Shares of tenants with weights 1, 2 and 4")
    weights(arguments.seconds)
    print("Classes")
    classes(arguments.seconds)
    print("The fair queue in a batcher")
    cost()
    greedy(arguments.seconds, arguments.load)


if __name__ == "__main__":
    main()
