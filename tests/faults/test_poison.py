"""Images that stop the worker that has them, and images that ask for hours of decoding."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fingerpost.client import Client
from fingerpost.errors import ImageError, SuspectImage
from tests.faults.field import Field, exit_code
from tests.faults.load import SERVICE
from tests.faults.table import Table
from tests.support.hostile_images import HOSTILE
from tests.support.poisonable import POISON, poisonable
from tests.support.processes import Processes

_DEADLINE_S = 5.0
_ROUNDS = 3
_COSTLY = (
    "jpeg: 20,000 sequential scans",
    "jpeg: 2,000 sequential scans with restarts",
    "bmp: ends of lines",
    "tiff: 2,048 tiles of 64 megapixels",
)


@pytest.mark.timeout(400)
async def test_a_workers_decoder_is_poisoned(
    processes: Processes, tmp_path: Path, table: Table
) -> None:
    row = table.row("22", "a worker whose decoder is poisoned, at one of three")
    row.done = (
        "An image that ends the process that has it, sent among others of that client and of three "
        "that know nothing of it, all of which retry; "
        f"{_ROUNDS} times, and dead workers were replaced; in between {len(_COSTLY)} images that "
        "ask for minutes to hours of decoding, to each worker"
    )
    field = Field(processes, poisonable(tmp_path / SERVICE), processes.registry())
    await field.ready(3)
    ended, refusals_s = [], []
    images = [HOSTILE[name]() for name in _COSTLY]
    client = Client(field.proxy)
    clients = {
        "by the proxy": client,
        "by another": Client(field.proxy),
        "by the registry": Client(registry=field.straight),
        "by another there": Client(registry=field.straight),
    }
    async with field.traffic(clients, timeout_s=_DEADLINE_S, concurrency=16, pause_s=0.04) as load:
        for _ in range(_ROUNDS):
            with pytest.raises(SuspectImage):
                await client.classify(POISON, SERVICE)
            await asyncio.sleep(1.0)
            dead = [each for each in field.workers if exit_code(each.process) is not None]
            ended.append(len(dead))
            for worker in dead:
                field.workers.remove(worker)
            await field.ready(3)
            for worker in field.workers:
                async with Client(f"static://{worker.address}") as one:
                    for image in images:
                        began = time.monotonic()
                        with pytest.raises(ImageError):
                            await one.classify(image, SERVICE)
                        refusals_s.append(time.monotonic() - began)
    row.load(load)
    row.at_most("workers that one image ended", max(ended), 2)
    row.at_most("slowest refusal of a costly image", max(refusals_s), 1.0, " s")
    row.at_most("p99.9", load.p999_s, _DEADLINE_S, " s")
    row.at_most("retry budget used", 100 * load.budget_used, 100.0, " %")
    suspects = sum(each.stats.suspect_images for each in clients.values())
    row.note(f"Suspect images: {suspects}, {_ROUNDS} of them poisoned")
    row.check()
    assert min(ended) >= 1
