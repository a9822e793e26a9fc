"""What an autoscaler is told of a service's use."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proxy.world import instance

from fingerpost.proxy.demand import Demand
from fingerpost.registry import Instance, LoadReport, Snapshot, WorkerState


def snapshot(*instances: Instance) -> Snapshot:
    return Snapshot(service="digits", instances=instances, known=True, index=1, taken_at=0.0)


def report(rif: int, images: int | None = None, boot_id: int = 7) -> LoadReport:
    more: dict[str, Any] = {} if images is None else {"images": images}
    return LoadReport(rif=rif, slots=4, state=WorkerState.READY, boot_id=boot_id, seq=1, **more)


A, B = instance("a", 1), instance("b", 2)


def test_requests_in_flight_are_those_of_all_workers_on_average_over_15_s() -> None:
    demand = Demand()
    busy = {"a": report(9), "b": report(6)}
    for second in range(10):
        demand.probed([snapshot(A, B)], busy, float(second))
    for second in range(10, 15):
        demand.probed([snapshot(A, B)], {"a": report(0), "b": report(0)}, float(second))
    load = demand.load(snapshot(A, B), {}, 0, 14.0)
    assert (load.workers, load.rif, load.demand) == (2, 0, 10)
    for second in range(15, 30):
        demand.probed([snapshot(A, B)], {"a": report(0), "b": report(0)}, float(second))
    assert demand.load(snapshot(A, B), {}, 0, 29.5).demand == 0


def test_held_lookups_are_demand_where_there_is_no_worker() -> None:
    load = Demand().load(snapshot(), {}, 3, 0.0)
    assert (load.workers, load.rif, load.held, load.demand) == (0, 0, 3, 3)


def test_a_lookup_that_was_held_is_use_until_its_image_is_answered() -> None:
    """Between the end of a hold and the probe that sees its image, nothing else would tell."""
    demand = Demand()
    demand.used("digits", 0.5)
    demand.probed([snapshot(A)], {"a": report(0, 0)}, 1.0)
    assert demand.load(snapshot(A), {}, 0, 1.0).demand == 1
    demand.probed([snapshot(A)], {"a": report(0, 0)}, 15.6)
    assert demand.load(snapshot(A), {}, 0, 15.6).demand == 0


def test_a_worker_that_answered_between_two_probes_is_in_use() -> None:
    demand = Demand()
    demand.probed([snapshot(A)], {"a": report(0, 100)}, 0.0)
    assert demand.load(snapshot(A), {}, 0, 0.0).demand == 0
    demand.probed([snapshot(A)], {"a": report(0, 101)}, 1.0)
    for second in range(2, 15):
        demand.probed([snapshot(A)], {"a": report(0, 101)}, float(second))
        assert demand.load(snapshot(A), {}, 0, float(second)).demand == 1
    demand.probed([snapshot(A)], {"a": report(0, 101)}, 17.0)
    assert demand.load(snapshot(A), {}, 0, 17.0).demand == 0


@pytest.mark.parametrize("images", [0, None], ids=["none answered", "not said"])
def test_a_worker_that_is_new_or_says_nothing_is_not_in_use(images: int | None) -> None:
    demand = Demand()
    for second in range(3):
        demand.probed([snapshot(A)], {"a": report(0, images)}, float(second))
    assert demand.load(snapshot(A), {}, 0, 2.0).demand == 0


def test_a_service_that_is_forgotten_leaves_nothing() -> None:
    demand = Demand()
    demand.probed([snapshot(A)], {"a": report(4, 1)}, 0.0)
    demand.probed([], {}, 1.0)
    demand.probed([snapshot(A)], {"a": report(0, 1)}, 2.0)
    assert demand.load(snapshot(A), {}, 0, 2.0).demand == 0
