"""Images of several tenants in one engine."""

from __future__ import annotations

import asyncio

import pytest

from fingerpost.errors import Overloaded
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.engine.fairness.flow import Flow
from tests.support.colours import encoded
from tests.support.engines import GatedBackend, pixels, running
from tests.support.waiting import until

GREEDY, HONEST = Flow("greedy"), Flow("honest")


@pytest.mark.parametrize("decoded", [True, False])
async def test_a_tenant_with_less_than_its_share_takes_a_place_of_one_with_more(
    engine: Engine, backend: GatedBackend, decoded: bool
) -> None:
    def ask(flow: Flow) -> asyncio.Task:
        asked = (
            engine.infer(pixels(), flow=flow)
            if decoded
            else engine.classify(encoded("red"), flow=flow)
        )
        return asyncio.create_task(asked)

    first = ask(GREEDY)
    await running(backend)
    greedy = [ask(GREEDY) for _ in range(20)]
    await until(lambda: engine.queued == 20)
    with pytest.raises(Overloaded):
        engine.admit(600, GREEDY)
    engine.admit(600, HONEST)
    honest = [ask(HONEST) for _ in range(10)]
    await until(lambda: sum(task.done() for task in greedy) == 10)
    assert engine.queued == 20
    assert engine.crowded(GREEDY)
    for flow in (GREEDY, HONEST):
        with pytest.raises(Overloaded, match="has its share of the places"):
            engine.admit(600, flow)
    backend.gate.set()
    outcomes = await asyncio.gather(first, *greedy, *honest, return_exceptions=True)
    refused = [each for each in outcomes if isinstance(each, BaseException)]
    assert len(refused) == 10
    assert all(isinstance(each, Overloaded) for each in refused)
    assert "of tenant 'greedy' went to one with less than its share" in str(refused[0])
    assert not any(isinstance(each, BaseException) for each in outcomes[21:])
    assert (engine.queued, engine.queued_cost, engine.inside) == (0, 0, 0)
