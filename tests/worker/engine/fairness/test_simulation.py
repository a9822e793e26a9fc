"""Tenants that share a simulated cluster of 16 workers; seeded."""

from __future__ import annotations

import pytest
from benchmarks.fairness.simulation import MAX_BATCH, Tenant, capacity, run_s, simulate

pytestmark = pytest.mark.slow

_SECONDS = 2.5
_WARM_UP_S = 1.0


def test_shares_are_within_5_percent_of_the_weights_and_nothing_is_lost() -> None:
    weights = {"one": 1.0, "two": 2.0, "four": 4.0}
    tenants = [
        Tenant(name=name, weight=weight, clients=8, at_once=100) for name, weight in weights.items()
    ]
    found = simulate(tenants, seconds=_SECONDS, warm_up_s=_WARM_UP_S)
    images = {name: len(each.latencies) for name, each in found.items()}
    total = sum(images.values())
    for name, weight in weights.items():
        assert images[name] / total == pytest.approx(weight / 7, rel=0.05)
    assert total / (_SECONDS - _WARM_UP_S) > 0.97 * capacity()
    assert not any(each.failed for each in found.values())


def test_batch_work_adds_at_most_a_batch_to_interactive_work() -> None:
    interactive = Tenant(name="interactive", rate=0.4 * capacity(), clients=60)
    batch = Tenant(name="batch", at_once=40, clients=16, rank=1)
    alone = simulate([interactive], seconds=_SECONDS, warm_up_s=_WARM_UP_S)["interactive"]
    both = simulate([interactive, batch], seconds=_SECONDS, warm_up_s=_WARM_UP_S)
    added_s = both["interactive"].quantile(0.99) - alone.quantile(0.99)
    assert added_s <= run_s(MAX_BATCH)
    assert len(both["batch"].latencies) / (_SECONDS - _WARM_UP_S) > 0.15 * capacity()
