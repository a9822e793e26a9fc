"""Clients send four times as many images as the workers have places for."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import fmean

import pytest

from fingerpost.client import Client
from tests.faults.field import Field
from tests.faults.load import SERVICE, Load
from tests.faults.table import Table
from tests.support.processes import Processes
from tests.support.sleeper import SECONDS, Sleeper

# It compares latencies, which another scene beside it would change.
pytestmark = pytest.mark.alone

_WORKERS = 2
_QUEUE = 4
_PLACES = _WORKERS * (1 + _QUEUE)
_CLIENTS = 4
_MEASURED_S = 12.0
_MOST_LOST = 1.11
_MOST_P99 = 2.0


async def _under_load(
    processes: Processes, model: Path, *options: object
) -> tuple[Load, float, float]:
    """The load on workers with these options, from when it has settled; and its two bounds."""
    field = Field(processes, model, processes.registry())
    for _ in range(_WORKERS):
        await field.adopt(processes.worker(field.registry, model, "--max-batch", 1, *options))
    clients = {f"client {number}": Client(registry=field.registry) for number in range(_CLIENTS)}
    async with field.traffic(clients, concurrency=4 * _PLACES, pause_s=0.0) as load:
        await asyncio.sleep(2.0)
        began = time.monotonic()
        await asyncio.sleep(_MEASURED_S)
        ended = time.monotonic()
    for worker in field.workers:
        worker.process.end()
    return load, began, ended


@pytest.mark.timeout(180)
async def test_four_times_as_many_images_as_places(
    processes: Processes, tmp_path: Path, table: Table
) -> None:
    row = table.row("17", "overload at 4 x")
    row.done = (
        f"{_CLIENTS} clients kept {4 * _PLACES} images under way at {_WORKERS} workers that sleep "
        f"{SECONDS * 1000:.0f} ms for each image and have places for {_PLACES} (--max-queue "
        f"{_QUEUE}). Before, the same with the default queue, which has places for all"
    )
    model = Sleeper(tmp_path / SERVICE).folder
    endless, *_ = measured = await _under_load(processes, model)
    best = _answered(*measured)
    load, *_ = measured = await _under_load(processes, model, "--max-queue", _QUEUE)
    row.load(endless)
    row.load(load)
    _, began, ended = measured
    answered = _answered(*measured)
    latencies = load.latencies(began, ended)
    p99_s = latencies[int(0.99 * len(latencies))]
    row.at_most("answers with the default queue, divided by those", best / answered, _MOST_LOST)
    row.at_most("p99, divided by the mean", p99_s / fmean(latencies), _MOST_P99)
    row.at_most("slowest image", latencies[-1], 10.0, " s")
    row.note(
        f"{best / _MEASURED_S:.1f} images/s with the default queue and {answered / _MEASURED_S:.1f}"
        f" with the short one; {load.retries.get('overloaded', 0)} refusals for "
        f"{len(load.calls)} images; p99 {p99_s:.2f} s, mean {fmean(latencies):.2f} s"
    )
    row.check()


def _answered(load: Load, began: float, ended: float) -> int:
    return sum(began <= each.ended < ended and not each.error for each in load.calls)
