"""A killed worker's port is taken by another process, while its entry is still listed."""

from __future__ import annotations

import asyncio
import re
import shutil
import urllib.request
from pathlib import Path

import pytest

from fingerpost.client import Client
from tests.faults.field import Field
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.support import zookeeper_server
from tests.support.colours import encoded
from tests.support.processes import Processes
from tests.support.zookeeper_server import ZooKeeperProcess

zookeeper_program = zookeeper_server.zookeeper_program
zookeeper_process = zookeeper_server.zookeeper_process

_IMAGES = re.compile(r'^fingerpost_worker_images_total\{model="(\S+)"\} (\S+)$', re.MULTILINE)


@pytest.fixture
def newer(model: Path, tmp_path: Path) -> Path:
    """The same model in another version."""
    shutil.copytree(model / "7", tmp_path / SERVICE / "8")
    return tmp_path / SERVICE


@pytest.fixture
def embedded_field(processes: Processes, model: Path) -> Field:
    return Field(processes, model, processes.registry())


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_consul(field: Field, newer: Path, table: Table) -> None:
    await _take_over("17a", "Consul", field, newer, table)


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_the_embedded_registry(
    embedded_field: Field, newer: Path, table: Table
) -> None:
    """The workers report to a TTL check: the entry of a dead one passes for 30 s."""
    await _take_over("17b", "embedded, TTL", embedded_field, newer, table, "--check", "ttl")


@pytest.mark.timeout(400)
async def test_a_port_is_taken_at_zookeeper(
    processes: Processes,
    model: Path,
    newer: Path,
    table: Table,
    zookeeper_process: ZooKeeperProcess,
) -> None:
    """The entry of a dead one stays until its session expires, 6 s after its death."""
    zookeeper_process.start()
    field = Field(processes, model, zookeeper_process.url)
    await _take_over("17c", "ZooKeeper", field, newer, table)


async def _take_over(
    number: str, registry: str, field: Field, newer: Path, table: Table, *options: object
) -> None:
    row = table.row(number, f"a killed worker's port is taken ({registry})")
    row.done = (
        "One of two workers was killed under load, and its port taken by a worker of another "
        "model; that one by one of the same model, and that one by one of another version"
    )
    for process in [field.launch(*options) for _ in range(2 - len(field.workers))]:
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
    async with field.traffic(clients, timeout_s=20.0) as load, plain:
        await asyncio.sleep(1.0)
        field.kill(victim)
        other = await field.adopt(field.launch("--port", port, "--name", "cats", *options))
        await asyncio.sleep(2.0)
        wrong += await asyncio.to_thread(_images, other.address, "cats")
        field.kill(other)
        same = await field.adopt(field.launch("--port", port, *options))
        await load.settle(field.addresses)
        field.kill(same)
        field.model, model = newer, field.model
        await field.adopt(field.launch("--port", port, *options))
        field.model = model
        await load.settle(field.addresses)
    row.load(load)
    row.at_most("images that another model classified", wrong, 0)
    row.at_most("answers to plain clients that were neither right nor refused", plain.bad, 0)
    row.bounded(load)
    stale = sum(each.stats.stale_entries for each in clients.values())
    await field.known(field.proxy, timeout_s=70.0)
    row.note(
        f"{stale} attempts at entries that were another process's; {plain.right} of {plain.asked} "
        "images of plain clients, which asked once for three images, were classified"
    )
    row.check()
    for worker in list(field.workers):
        if worker.address.endswith(f":{port}"):
            await field.leave(worker)


class _Plain:
    """Clients without a library: `GET /`, and then images to that address, as curl does it."""

    def __init__(self, proxy: str) -> None:
        self._proxy = proxy
        self._image = encoded("red")
        self._ending = False
        self.asked = self.right = self.bad = 0

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
                    self.bad += getattr(error, "code", 421) != 421
                else:
                    self.right += right
                    self.bad += not right


def _images(address: str, model: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        counts = dict(_IMAGES.findall(answer.read().decode()))
    return float(counts.get(model, 0))
