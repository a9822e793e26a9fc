"""Workers slow down, die and leave under an unmodified client of gRPC that finds them by xDS."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fingerpost.deploy.xds_bootstrap import grpc_bootstrap
from tests.faults.field import Field, Worker, images_at
from tests.faults.load import SERVICE
from tests.faults.table import Row, Table
from tests.support.colours import encoded
from tests.support.ports import free_port
from tests.support.processes import Process, Processes
from tests.support.sleeper import Sleeper

_PROGRAM = Path(__file__).with_name("triton_load.py")
_WORKERS = 3
_IMAGE_S = 0.02
_SLOWER = 10
_UNDER_WAY = 6
_NOTICED_S = 5.0
_MEASURED_S = 4.0
_MOST_SHARE = 40.0  # of a third; in turn, without weights, it would have all of that


@dataclass(frozen=True)
class Program:
    """Triton's client, which sends images without pause."""

    process: asyncio.subprocess.Process

    async def told(self) -> dict[str, Any]:
        """What was answered since the last time."""
        out, lines = self.process.stdin, self.process.stdout
        assert out is not None
        assert lines is not None
        out.write(b"\n")
        async with asyncio.timeout(20):
            return dict(json.loads(await lines.readline()))

    async def until_answered(self, row: Row, count: int = 20) -> None:
        """Wait until so many more images were answered."""
        while count > 0:
            count -= await self.counted(row)
            await asyncio.sleep(0.05)

    async def counted(self, row: Row) -> int:
        """Count what was answered since the last time in a row; returns how many images."""
        told = await self.told()
        row.count(told["requests"], told["failed"])
        return int(told["requests"])


@asynccontextmanager
async def program(xds_port: int, folder: Path) -> AsyncIterator[Program]:
    image = folder / "image.png"
    image.write_bytes(encoded("green"))
    bootstrap = json.dumps(grpc_bootstrap([("127.0.0.1", xds_port)]))
    process = await asyncio.create_subprocess_exec(
        sys.executable, _PROGRAM, f"xds:///{SERVICE}", SERVICE, image, str(_UNDER_WAY),
        env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": bootstrap},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield Program(process)
    finally:
        process.kill()
        await process.communicate()


async def share(field: Field, worker: Worker, seconds: float) -> float:
    """A worker's share of the images of that time, times what would be fair."""

    async def images() -> dict[str, float]:
        ids = [each.id for each in field.workers]
        counts = [asyncio.to_thread(images_at, each.address, SERVICE) for each in field.workers]
        return dict(zip(ids, await asyncio.gather(*counts), strict=True))

    before = await images()
    await asyncio.sleep(seconds)
    grown = {name: count - before[name] for name, count in (await images()).items()}
    return len(grown) * grown[worker.id] / sum(grown.values())


@pytest.mark.timeout(180)
async def test_a_client_of_grpc_that_finds_its_workers_by_xds(
    processes: Processes, tmp_path: Path, table: Table
) -> None:
    slow_row = table.row("30a", f"by xDS: one of three workers {_SLOWER} x slower")
    slow_row.done = (
        f"An unmodified `tritonclient.grpc` with `xds:///{SERVICE}`, {_UNDER_WAY} images under way "
        f"all the time; workers that sleep {_IMAGE_S * 1000:.0f} ms for each. One of three slept "
        "ten times as long"
    )
    row = table.row("30b", "by xDS: one worker of three killed, then all restarted")
    row.done = (
        "The same client. One worker was killed (`kill -9`) and replaced; then each of the others "
        "got SIGTERM, left, and was replaced before the next one"
    )
    models = [Sleeper(tmp_path / str(number) / SERVICE, _IMAGE_S) for number in range(_WORKERS)]
    field = Field(processes, models[0].folder, processes.registry())
    xds_port = free_port()
    field.proxy = processes.proxy(field.registry, "--xds-port", xds_port)

    def launch(model: Sleeper) -> Process:
        options = ("--max-batch", 1, "--grpc-port", 0)
        return processes.worker(field.registry, model.folder, *options)

    async def replace() -> None:
        await field.adopt(launch(models[0]))
        await field.known(field.proxy)

    for process in [launch(each) for each in models]:
        await field.adopt(process)
    await field.known(field.proxy)
    async with program(xds_port, tmp_path) as client:
        await client.until_answered(slow_row)
        models[-1].pace(_SLOWER * _IMAGE_S)
        await asyncio.sleep(_NOTICED_S)
        found = await share(field, field.workers[-1], _MEASURED_S)
        models[-1].pace(_IMAGE_S)
        await client.counted(slow_row)
        name = f"its share of a third, from {_NOTICED_S:.0f} s on"
        slow_row.at_most(name, 100 * found, _MOST_SHARE, " %")

        began = time.monotonic()
        field.kill(field.workers[0])
        await client.until_answered(row)
        await replace()
        for worker in tuple(field.workers[:2]):
            await field.leave(worker)
            await client.until_answered(row)
            await replace()
        await client.until_answered(row)
        told = await client.told()
        row.count(told["requests"], told["failed"])
        row.note(f"It took {time.monotonic() - began:.0f} s")
    for each in (slow_row, row):
        each.check()
