"""A killed worker's port is taken by another process, while its entry is still listed."""

from __future__ import annotations

import asyncio
import urllib.request
from pathlib import Path

import pytest

from fingerpost.client import Client
from tests.faults.field import Field, images_at
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.support import zookeeper_server
from tests.support.colours import encoded
from tests.support.processes import Processes
from tests.support.zookeeper_server import ZooKeeperProcess

zookeeper_program = zookeeper_server.zookeeper_program
zookeeper_process = zookeeper_server.zookeeper_process

_COLOURS = ("red", "green", "blue")


@pytest.fixture
def embedded_field(processes: Processes, model: Path) -> Field:
    return Field(processes, model, processes.registry())


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_consul(field: Field, tmp_path: Path, table: Table) -> None:
    await _take_over("17a", "Consul", field, tmp_path, table)


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_the_embedded_registry(
    embedded_field: Field, tmp_path: Path, table: Table
) -> None:
    """The workers report to a TTL check: the entry of a dead one passes for 30 s."""
    await _take_over("17b", "embedded, TTL", embedded_field, tmp_path, table, check="ttl")


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_zookeeper(
    processes: Processes,
    model: Path,
    tmp_path: Path,
    table: Table,
    zookeeper_process: ZooKeeperProcess,
) -> None:
    """The entry of a dead one stays until its session expires, 6 s after its death."""
    zookeeper_process.start()
    field = Field(processes, model, zookeeper_process.url)
    await _take_over("17c", "ZooKeeper", field, tmp_path, table)


async def _take_over(
    number: str, registry: str, field: Field, folder: Path, table: Table, *, check: str = "http"
) -> None:
    row = table.row(number, f"a killed worker's port is taken ({registry})")
    row.done = (
        "One of two workers was killed under load, and its port taken at once by a process that "
        "stood by, of another model; that one by one of the same model, and that one by one of "
        "another version. New clients came before each of them registered, while the entry of the "
        "killed one was still listed"
    )
    for process in [field.launch("--check", check) for _ in range(2 - len(field.workers))]:
        await field.adopt(process)
    await field.ready(len(field.workers))
    victim = field.workers[0]
    port = victim.address.rpartition(":")[2]
    wrong = 0.0
    plain = _Plain(field.proxy)
    clients = {
        "by the proxy": Client(field.proxy),
        "by the registry": Client(registry=field.straight),
    }
    late = _Newcomers(field)
    async with field.traffic(clients, timeout_s=20.0) as load, plain:
        await asyncio.sleep(1.0)
        for model, version in (("cats", "7"), (SERVICE, "7"), (SERVICE, "8")):
            next_one = await field.stand_by(
                folder / f"{model}-{version}", port, model, version, check
            )
            field.kill(victim)
            await next_one.bind()
            await late.come()
            victim = await next_one.register()
            if model == SERVICE:
                await load.settle(field.addresses)
            else:
                await asyncio.sleep(2.0)
                wrong += await asyncio.to_thread(images_at, victim.address, model)
    row.load(load)
    row.count(late.requests, late.errors)
    row.at_most("images that another model classified", wrong, 0)
    row.at_most("answers to plain clients that were neither right nor refused", plain.bad, 0)
    row.bounded(load)
    stale = late.stale + sum(each.stats.stale_entries for each in clients.values())
    await field.known(field.proxy, timeout_s=70.0)
    row.note(
        f"{stale} attempts at entries that were another process's, {late.stale} of them by new "
        f"clients; {plain.right} of {plain.asked} images of plain clients, which asked once for "
        f"three images, were classified, and {plain.misdirected} refused as misdirected"
    )
    row.check()
    assert stale >= 1, "nobody tried an entry that was another process's"
    for worker in list(field.workers):
        if worker.address.endswith(f":{port}"):
            await field.leave(worker)


class _Newcomers:
    """Clients that know nothing yet of what happened: they take every entry for good."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self.requests = self.stale = 0
        self.errors: list[str] = []

    async def come(self) -> None:
        makers = [lambda: Client(self._field.proxy), lambda: Client(registry=self._field.straight)]
        for make in makers * 2:
            async with make() as client:
                await asyncio.gather(*(self._classify(client, colour) for colour in _COLOURS * 4))
                self.stale += client.stats.stale_entries

    async def _classify(self, client: Client, colour: str) -> None:
        self.requests += 1
        try:
            result = await client.classify(encoded(colour), SERVICE, timeout_s=20.0)
        except Exception as error:
            self.errors.append(f"{type(error).__name__}: {error}")
        else:
            if result.label != colour:
                self.errors.append(f"{colour} was called {result.label}")


class _Plain:
    """Clients without a library: `GET /`, and then images to that address, as curl does it."""

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        self._image = encoded("red")
        self._ending = False
        self.asked = self.right = self.bad = self.misdirected = 0

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(asyncio.to_thread(self._run), name="plain clients")

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await self._task

    def _run(self) -> None:
        while not self._ending:
            request = urllib.request.Request(  # noqa: S310 - loopback
                self._proxy, headers={"Accept": "*/*"}
            )
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                url = f"http://{answer.read().decode().strip()}"
            for _ in range(3):
                self.asked += 1
                try:
                    with urllib.request.urlopen(url, self._image, timeout=5) as answer:
                        right = b'["red"' in answer.read()[:8]
                except OSError as error:
                    code = getattr(error, "code", None)  # None: nobody is there now
                    self.misdirected += code == 421
                    self.bad += code not in (None, 421)
                else:
                    self.right += right
                    self.bad += not right
