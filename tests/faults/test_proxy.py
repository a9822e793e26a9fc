"""A proxy is restarted, and a proxy has many clients."""

from __future__ import annotations

import asyncio
import os
import signal
import time

import psutil
import pytest

from fingerpost.client import Client
from tests.faults.field import Field, http
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.faults.tap import Tap
from tests.support.optional import not_none
from tests.support.ports import free_port
from tests.support.waiting import until

_WATCHERS = 500


@pytest.mark.timeout(180)
async def test_a_proxy_is_restarted(field: Field, table: Table) -> None:
    row = table.row("11", "proxy restarted (SIGHUP)")
    row.done = (
        "SIGHUP to a proxy three times, under load by a client that watches it, while 8 plain "
        "clients opened a new connection for every `GET /`"
    )
    await field.ready(3)
    port = free_port()
    url = await field.start_proxy(port=port)
    await field.known(url)
    plain = _Plain(port)
    async with field.traffic({"by the proxy": Client(url)}) as load:
        tasks = [asyncio.create_task(plain.run()) for _ in range(8)]
        try:
            pids = [_listener(port)]
            for _ in range(3):
                await asyncio.sleep(2.0)
                old = psutil.Process(pids[-1])
                os.kill(old.pid, signal.SIGHUP)
                await until(
                    lambda old=old: not old.is_running() or old.status() == psutil.STATUS_ZOMBIE,
                    "the old proxy has gone",
                )
                await until(lambda: _listener(port) is not None, "somebody listens", within_s=10.0)
                pids.append(_listener(port))
            await asyncio.sleep(2.0)
            # The watch is alive: a change reaches the client by the last successor.
            victim = field.workers[0]
            killed = field.kill(victim)
            await field.known(url)
            await asyncio.sleep(1.0)
        finally:
            plain.ending = True
            await asyncio.gather(*tasks)
            last = _listener(port)
            if last is not None:
                os.kill(last, signal.SIGTERM)
    assert len(set(pids)) == 4, pids
    row.load(load)
    row.count(plain.answered + len(plain.errors), plain.errors)
    refused = sum("refused" in each.lower() for each in plain.errors)
    row.at_most("connections refused", refused, 0)
    row.at_most("connections reset or answered wrongly", len(plain.errors) - refused, 0)
    row.note(
        f"{plain.answered} short connections, the slowest took {plain.slowest_s * 1000:.0f} ms"
    )
    late = [each.began - killed for each in load.sent_to(victim.address, killed)]
    row.at_most("last request to a worker killed afterwards", max(late, default=0.0), 1.5, " s")
    row.check()


@pytest.mark.timeout(180)
async def test_many_clients_watch_one_proxy(field: Field, table: Table) -> None:
    row = table.row("13", f"{_WATCHERS} clients watching one proxy")
    row.done = (
        f"{_WATCHERS} blocking queries at one proxy, all answered four times because of a "
        "worker's maintenance mode; counted on the wire between the proxy and its agent"
    )
    await field.ready(3)
    async with Tap(field.registry) as tap:
        port = free_port()
        url = await field.start_proxy(tap.url, port=port)
        await field.known(url)
        watchers = _Watchers(port)
        tasks = [asyncio.create_task(watchers.run()) for _ in range(_WATCHERS)]
        try:
            await until(lambda: watchers.held == _WATCHERS, "all lookups are held")
            began = time.monotonic()
            maintenance = f"{field.registry}/v1/agent/service/maintenance/{field.workers[0].id}"
            woken_s = []
            for enable in ("true", "false", "true", "false"):
                watchers.woken = 0
                at = time.monotonic()
                await http("PUT", f"{maintenance}?enable={enable}")
                await until(lambda: watchers.woken >= _WATCHERS, "all are woken")
                woken_s.append(time.monotonic() - at)
                await until(lambda: watchers.held == _WATCHERS, "all lookups are held again")
            await until(
                lambda: any("index=" in each for each in tap.held), "the proxy watches again"
            )
            held = [each for each in tap.held if each.startswith(f"/v1/health/service/{SERVICE}")]
            catalog = [each for each in tap.held if each.startswith("/v1/catalog/services")]
            polls = tap.count(f"/v1/health/service/{SERVICE}", began)
            process = psutil.Process(_listener(port))
            rss_mb = process.memory_info().rss / 1e6
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            os.kill(not_none(_listener(port)), signal.SIGTERM)
    row.count(watchers.answers + len(watchers.errors), watchers.errors)
    row.at_most("watches of the service at the registry", len(held), 1)
    row.at_most("watches of the list of services", len(catalog), 1)
    row.at_most("polls of the service for 4 changes", polls, 10)
    row.at_most("the proxy's memory", rss_mb, 150, " MB")
    row.at_most("all notified of a change after", max(woken_s), 1.0, " s")
    row.check()


def _listener(port: int) -> int | None:
    """The process that listens at this port; of two, the younger one."""
    pids = [
        each.pid
        for each in psutil.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid
    ]
    return max(pids, key=lambda pid: psutil.Process(pid).create_time()) if pids else None


class _Plain:
    """Clients that open a connection, ask `GET /` and close it, as curl does."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.ending = False
        self.answered = 0
        self.slowest_s = 0.0
        self.errors: list[str] = []

    async def run(self) -> None:
        while not self.ending:
            began = time.monotonic()
            try:
                async with asyncio.timeout(10.0):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                    try:
                        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        answer = await reader.read()
                    finally:
                        writer.close()
            except (OSError, TimeoutError) as error:
                self.errors.append(f"{type(error).__name__}: {error}")
            else:
                if answer.startswith(b"HTTP/1.1 200 "):
                    self.answered += 1
                else:
                    self.errors.append(f"answered {answer[:80]!r}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            await asyncio.sleep(0.02)


class _Watchers:
    """Clients that hold a lookup, and the next one when it was answered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.held = 0
        self.woken = 0
        self.answers = 0
        self.errors: list[str] = []

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        index = 0
        try:
            while True:
                held = f"?index={index}&wait=60s" if index else ""
                request = f"GET /v1/resolve/{SERVICE}{held} HTTP/1.1\r\nHost: x\r\n\r\n"
                writer.write(request.encode())
                self.held += bool(index)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                self.held -= bool(index)
                fields = dict(
                    line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line
                )
                await reader.readexactly(int(fields["content-length"]))
                if " 200 " not in head.split("\r\n")[0]:
                    self.errors.append(head.split("\r\n")[0])
                self.answers += 1
                self.woken += bool(index)
                index = int(fields["fingerpost-index"])
        except (OSError, asyncio.IncompleteReadError) as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        finally:
            writer.close()
