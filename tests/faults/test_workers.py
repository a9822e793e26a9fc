"""Workers die, hang, leave and come, at a single agent."""

from __future__ import annotations

import asyncio
import signal
import time

import psutil
import pytest

from fingerpost.client import Client
from tests.faults.field import Field
from tests.faults.observed_lists import AtConsul, AtProxy
from tests.faults.table import Table
from tests.support.forwarder import Forwarder
from tests.support.ports import free_port

# Of every image, in the rows that hurt workers; a stopped one is given up after 3 s.
_DEADLINE_S = 5.0
_GONE_S = 14.0
_ALIAS = "127.0.0.2"


@pytest.mark.timeout(180)
async def test_a_worker_is_killed(field: Field, table: Table) -> None:
    row = table.row("1", "worker `kill -9`, one of three")
    row.done = "One of three workers was killed under load, and replaced by a new one; three times"
    off_list, last_sent, after_failure, loads = [], [], [], []
    again = 0
    for _ in range(3):
        await field.ready(3)
        async with (
            AtConsul(field.registry) as consul,
            AtProxy(field.proxy) as proxy,
            field.traffic(timeout_s=_DEADLINE_S) as load,
        ):
            await asyncio.sleep(2.0)
            victim = field.workers[0]
            killed = field.kill(victim)
            for observed in (consul, proxy):
                await observed.until_without(victim.id)
            off_list.append(consul.seen[-1][0] - killed)
            await asyncio.sleep(3.0)
        row.load(load)
        loads.append(load)
        sent = load.sent_to(victim.address, killed)
        last_sent.append(max(each.began for each in sent) - killed if sent else 0.0)
        late = load.after_the_first_failure(victim.address, killed)
        after_failure.append([round(each, 3) for each in late])
        refused = load.after_the_first_failure(victim.address, killed, outcomes=("REFUSED",))
        again += sum(each < 1.0 for each in refused)
    row.at_most("off the passing list after", max(off_list), 1.5, " s")
    row.at_most("last request sent to it after", max(last_sent), 1.5, " s")
    # A client leaves a worker that refused a connection out for a second, then tries it once.
    at_once = [each for late in after_failure for each in late if each < 1.0]
    row.at_most("a client went on sending to it for", max(at_once, default=0.0), 0.1, " s")
    row.at_most("attempts by a client after it had refused one", again, 0)
    row.bounded(*loads)
    row.note(f"Attempts of each client after its first failure, in s: {after_failure}")
    row.check()


@pytest.mark.timeout(180)
async def test_a_worker_is_stopped(field: Field, table: Table) -> None:
    row = table.row("2", "worker stopped (SIGSTOP), one of three")
    row.done = "One of three workers was stopped for 14 s under load; then it was continued"
    await field.ready(3)
    async with AtConsul(field.registry) as consul, field.traffic(timeout_s=_DEADLINE_S) as load:
        began = time.monotonic()
        await asyncio.sleep(6.0)
        victim = field.workers[0]
        stopped = victim.signal(signal.SIGSTOP)
        try:
            off = await consul.until_without(victim.id)
            await asyncio.sleep(14.0 - (time.monotonic() - stopped))
        finally:
            continued = victim.signal(signal.SIGCONT)
        back = await consul.until(lambda ids: victim.id in ids, "the continued one is back")
        await load.used(victim.address, since=continued)
    row.load(load)
    sent = [each for each in load.sent_to(victim.address, stopped) if each.began < continued]
    row.at_most("off the passing list after", off - stopped, 2.0, " s")
    row.at_most(
        "last request sent to it after", max(each.began for each in sent) - stopped, 2.0, " s"
    )
    before = load.p99_ms(began, stopped)
    after = load.p99_ms(stopped + 2.0, continued)
    row.at_most("p99 afterwards, divided by the one before", after / before, 2.0)
    row.bounded(load)
    held = [each for each in load.calls if each.began <= stopped + 2.0 and each.latency_s > 1.0]
    row.note(
        f"p99 {before:.0f} ms before and {after:.0f} ms from 2 s after; {len(held)} calls that "
        f"it held took up to {max((each.latency_s for each in held), default=0):.1f} s; "
        f"back on the list {back - continued:.2f} s after SIGCONT"
    )
    row.check()


async def test_a_worker_is_drained(field: Field, table: Table) -> None:
    row = table.row("3a", "drain of one worker of three (SIGTERM)")
    row.done = "SIGTERM to one of three workers under load"
    await field.ready(3)
    async with field.traffic(timeout_s=_DEADLINE_S) as load:
        await asyncio.sleep(2.0)
        victim = field.workers[0]
        ordered = time.monotonic()
        took_s = await field.leave(victim)
        await asyncio.sleep(2.0)
    row.load(load)
    sent = load.sent_to(victim.address, ordered)
    bad = [each for each in sent if each.outcome in ("REFUSED", "FAILED")]
    row.at_most("attempts that it refused", len(bad), 0)
    row.bounded(load)
    row.note(
        f"It left {took_s:.1f} s after the signal; last request to it "
        f"{max((each.began for each in sent), default=ordered) - ordered:.2f} s after it"
    )
    row.check()


@pytest.mark.timeout(240)
async def test_all_workers_are_replaced_one_after_the_other(field: Field, table: Table) -> None:
    row = table.row("3b", "rolling restart of all workers")
    row.done = "Each of three workers got SIGTERM, left, and was replaced before the next one"
    await field.ready(3)
    first = field.ids
    async with field.traffic(timeout_s=_DEADLINE_S) as load:
        began = time.monotonic()
        for worker in list(field.workers):
            await field.leave(worker)
            await field.adopt(field.launch())
        took_s = time.monotonic() - began
        await load.settle(field.addresses)
    assert not first & field.ids
    row.load(load)
    row.bounded(load)
    row.note(f"It took {took_s:.0f} s")
    row.check()


@pytest.mark.timeout(180)
async def test_a_new_worker_is_used(field: Field, table: Table) -> None:
    row = table.row("12", "a worker joins")
    row.done = (
        "A fourth worker joined under load, twice; counted from Consul's list to its requests"
    )
    await field.ready(3)
    used: dict[str, float] = {}
    for _ in range(2):
        clients = {
            "by the proxy": Client(field.proxy),
            "by the registry": Client(registry=field.registry),
        }
        async with AtConsul(field.registry) as consul, field.traffic(clients) as load:
            process = field.launch()
            registered = await consul.until(
                field.ids.__lt__, "the new one is listed", within_s=60.0
            )
            worker = await field.adopt(process)
            for name in clients:
                await load.used(worker.address, name)
                first = load.sent_to(worker.address, 0.0, name)[0]
                used[name] = max(used.get(name, 0.0), first.ended - registered)
            field.kill(worker)
            await consul.until_without(worker.id)
        row.load(load)
    for name, seconds in used.items():
        row.at_most(f"first answer to a client {name} after", seconds, 1.0, " s")
    row.check()


@pytest.mark.timeout(180)
async def test_a_worker_comes_back_on_another_port(field: Field, table: Table) -> None:
    row = table.row("14", "worker restarted on another port")
    row.done = (
        "`kill -9` of one of three workers under load, and at once the start of another one, "
        "which took another port, as a supervisor would do; twice"
    )
    used_s, loads = [], []
    await field.ready(3)
    for _ in range(2):
        async with field.traffic(timeout_s=_DEADLINE_S) as load:
            await asyncio.sleep(2.0)
            victim = field.workers[0]
            killed = field.kill(victim)
            worker = await field.adopt(field.launch())
            ready = time.monotonic()
            assert worker.address != victim.address
            for name in load.clients:
                await load.used(worker.address, name)
            used_s.append(time.monotonic() - ready)
            await load.settle(field.addresses)
        row.load(load)
        loads.append(load)
        sent = [each.began - killed for each in load.sent_to(victim.address, killed)]
        row.note(f"Last attempt at the old port {max(sent, default=0.0):.2f} s after the kill")
    row.at_most("used by all clients, counted from its readiness, after", max(used_s), 1.0, " s")
    row.bounded(*loads)
    row.check()


@pytest.mark.timeout(180)
async def test_a_worker_vanishes_behind_open_connections(field: Field, table: Table) -> None:
    row = table.row(
        "15", "half-open connections: a worker's machine disappears without closing them"
    )
    row.done = (
        f"For {_GONE_S:.0f} s under load, a connection in front of one of three workers dropped "
        "everything in both directions and closed nothing, while the worker reported to Consul "
        "that it was healthy; then it passed everything on again"
    )
    await field.ready(2)
    port = free_port()
    async with Forwarder(port, host=_ALIAS, port=port) as wire:
        # Clients are told the wire's address, and Consul asks nobody.
        process = field.launch("--port", port, "--advertise", _ALIAS, "--check", "ttl")
        victim = await field.adopt(process)
        await field.known(field.proxy)
        async with AtConsul(field.registry) as consul, field.traffic(timeout_s=_DEADLINE_S) as load:
            began = time.monotonic()
            await asyncio.sleep(5.0)
            wire.hole.set()
            vanished = time.monotonic()
            await asyncio.sleep(5.0)
            open_connections = _connections(port)
            await asyncio.sleep(_GONE_S - 5.0)
            listed = victim.id in consul.now
            wire.hole.clear()
            again = time.monotonic()
            await load.used(victim.address, since=again)
            await load.settle(field.addresses)
    field.kill(victim)
    row.load(load)
    sent = [each for each in load.sent_to(victim.address, vanished) if each.began < again]
    after = load.p99_ms(vanished + 5.0, again)
    before = load.p99_ms(began, vanished)
    assert listed, "Consul was to believe that the worker is well"
    row.bounded(load)
    row.at_most("attempts at it in that time", len(sent), 20)
    row.at_most("p99 from 5 s on, divided by the one before", after / before, 2.0)
    row.at_most("open connections to it after 5 s", open_connections, 8)
    row.note(
        f"p99 {before:.0f} ms before and {after:.0f} ms from 5 s after; attempts at it began "
        f"{', '.join(f'{each.began - vanished:.1f}' for each in sent)} s after it had disappeared"
    )
    row.check()


def _connections(port: int) -> int:
    """Of this process, to that port of the second loopback address."""
    return sum(
        each.raddr == (_ALIAS, port) and each.status == psutil.CONN_ESTABLISHED
        for each in psutil.Process().net_connections("tcp")
    )
