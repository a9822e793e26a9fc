"""The single agent loses its memory."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from fingerpost.client import Client
from fingerpost.registry import open_registry
from tests.faults.field import Field, http
from tests.faults.load import SERVICE
from tests.faults.observed_lists import AtConsul, AtProxy, InWatch
from tests.faults.table import Table
from tests.support.consul_process import ConsulProcess
from tests.support.waiting import until


@pytest.mark.timeout(180)
async def test_the_agent_loses_its_memory(field: Field, table: Table, agent: ConsulProcess) -> None:
    row = table.row("7", "agent restarted, its memory lost")
    row.done = (
        "The only agent was killed (`kill -9`) under load and started again at once, twice; "
        "it keeps nothing on disk"
    )
    again_s, watch_s, proxy_s, outage_s = [], [], [], []
    empty = 0
    for _ in range(2):
        await field.ready(3)
        async with (
            aclosing(open_registry(field.registry)) as registry,
            AtProxy(field.proxy) as proxy,
            field.traffic(
                {"by the proxy": Client(field.proxy), "by a watch": Client(registry=registry)}
            ) as load,
        ):
            mine = InWatch(registry.watch(SERVICE))
            await asyncio.sleep(2.0)
            killed = time.monotonic()
            agent.stop()
            await asyncio.to_thread(agent.start)
            outage_s.append(time.monotonic() - killed)
            async with AtConsul(field.registry) as consul:
                again = await consul.until(field.ids.__eq__, "all are registered again")
            again_s.append(again - killed)
            watch_s.append(await _back(mine, field, again) - again)
            proxy_s.append(await _fresh(field, again) - again)
            await asyncio.sleep(2.0)
            empty += mine.empty + proxy.empty
        row.load(load)
    row.at_most("all registered again after", max(again_s), 5.0, " s")
    row.at_most("a client's watch back after a further", max(watch_s), 2.0, " s")
    row.at_most("the proxy's watch back after a further", max(proxy_s), 2.0, " s")
    row.at_most("lists that were empty", empty, 0)
    row.note(
        f"Counted from the agent's death; it answered again {max(outage_s):.1f} s later. "
        f"Registered again after {', '.join(f'{each:.1f}' for each in again_s)} s"
    )
    row.check()


async def _back(mine: InWatch, field: Field, since: float) -> float:
    """Wait until a watch has the registry's list of all workers, from after `since`."""

    def back() -> bool:
        view = mine.watch.view
        if mine.watch.error is not None or view is None or view.taken_at <= since - 0.05:
            return False
        return not view.retained and mine.now == field.ids

    await until(back, "the watch is back")
    return time.monotonic()


async def _fresh(field: Field, since: float) -> float:
    """Wait until the proxy lists all workers, as the registry listed them after `since`."""
    end = time.monotonic() + 30.0
    while True:
        body = await http("GET", f"{field.proxy}/v1/resolve/{SERVICE}")
        now = time.monotonic()
        retained = body.get("retained") or ()
        ids = {each["id"] for each in body["instances"]}
        if ids == field.ids and not retained and now - body["age_s"] > since - 0.05:
            return now
        assert now < end, f"the proxy did not come back: {body}"
        await asyncio.sleep(0.02)
