"""Connections that want nothing, until a worker and a proxy have no descriptor left."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import time

import psutil
import pytest

from tests.faults.field import Field
from tests.faults.table import Table
from tests.support.http import raw_connection
from tests.support.ports import free_port

_SILENT = 400
_SPARE = 40  # descriptors that each process has beside those it uses at first
_LASTS_S = 8.0
_DEADLINE_S = 5.0


@pytest.mark.timeout(180)
async def test_descriptors_are_used_up(field: Field, table: Table) -> None:
    row = table.row("23", "descriptors used up, at one of three workers and at the proxy")
    row.done = (
        f"{_SILENT} connections that sent nothing were opened under load to one of three workers "
        f"and to a proxy, each with {_SPARE} descriptors left, and kept for {_LASTS_S:g} s"
    )
    await field.ready(3)
    victim, port = field.workers[0], free_port()
    url = f"http://127.0.0.1:{port}"
    proxy = field.processes.start("proxy", "--port", port, "--registry", field.registry)
    await field.known(url)
    ports = [int(victim.address.rpartition(":")[2]), port]
    pids = [victim.pid, proxy.pid]
    for pid in pids:
        process = psutil.Process(pid)
        most = process.num_fds() + _SPARE
        process.rlimit(resource.RLIMIT_NOFILE, (most, most))
    used = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]
    async with field.traffic(timeout_s=_DEADLINE_S) as load:
        await asyncio.sleep(1.0)
        async with contextlib.AsyncExitStack() as stack:
            for port in ports:
                for _ in range(_SILENT):
                    await stack.enter_async_context(raw_connection(port))
            await asyncio.sleep(_LASTS_S)
        freed = time.monotonic()
        await load.used(victim.address, since=freed)
        again_s = time.monotonic() - freed
        await field.known(url)
        proxy_again_s = time.monotonic() - freed
    row.load(load)
    row.bounded(load)
    row.at_most("the worker had images again after", again_s, 15.0, " s")
    row.at_most("the proxy answered again after", proxy_again_s, 15.0, " s")
    for name, pid, before in zip(("worker", "proxy"), pids, used, strict=True):
        spent = sum(psutil.Process(pid).cpu_times()[:2]) - before
        row.note(f"The {name} used {spent:.1f} s of processor time meanwhile.")
    logs = [process.log.stat().st_size for process in (victim.process, proxy)]
    row.at_most("bytes in the longer log", max(logs), 20_000)
    field.kill(victim)  # it keeps its limit
    proxy.end()
    row.check()
