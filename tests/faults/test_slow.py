"""One of four workers slows down to a tenth under load, and recovers."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fingerpost.client import Client
from tests.faults.field import Field, Worker
from tests.faults.load import SERVICE, Load
from tests.faults.table import Table
from tests.support.processes import Processes
from tests.support.sleeper import SECONDS, Sleeper

# It compares latencies, which another scene beside it would change.
pytestmark = pytest.mark.alone

_WORKERS = 4
_SLOWER = 10
_MEASURED_S = 10.0
_NOTICED_S = 5.0  # it has lost its share so long after it slowed down,
_BACK_S = 30.0  # and has it back so long after it recovered
_BACK_SHARE = 0.8
_MOST_P99 = 1.5
_MOST_SHARE = 5.0

_LOADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "closed": (
        "16a",
        "8 images under way all the time, two for each",
        {"concurrency": 8, "pause_s": 0.0},
    ),
    "open": (
        "16b",
        "images coming at random, at half of what the four can do",
        {"rate_per_s": 0.5 * _WORKERS / SECONDS},
    ),
}


@dataclass(frozen=True)
class Four:
    """Four workers of one slot, at a registry of their own, and their models' paces."""

    field: Field
    models: list[Sleeper]

    async def ready(self, count: int) -> None:
        """Bring it to so many of them."""
        field = self.field
        for model in self.models[len(field.workers) : count]:
            process = field.processes.worker(field.registry, model.folder, "--max-batch", 1)
            await field.adopt(process)

    def share(self, load: Load, worker: Worker, since: float, before: float) -> float:
        """A worker's share of the images, times what would be fair."""
        return _WORKERS * load.share(worker.id, since, before)


@pytest.fixture
def four(processes: Processes, tmp_path: Path) -> Four:
    models = [Sleeper(tmp_path / str(number) / SERVICE) for number in range(_WORKERS)]
    return Four(Field(processes, models[0].folder, processes.registry()), models)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", _LOADS)
async def test_a_worker_at_a_tenth_of_its_speed(kind: str, four: Four, table: Table) -> None:
    number, how, options = _LOADS[kind]
    row = table.row(number, f"one of four workers {_SLOWER} x slower, {kind} loop")
    row.done = (
        f"Workers that sleep {SECONDS * 1000:.0f} ms for each image, one image at a time, {how}. "
        "First three of them, then all four, one of which slept ten times as long, and recovered"
    )
    field = four.field

    def traffic() -> Any:
        return field.traffic({"by the registry": Client(registry=field.registry)}, **options)

    await four.ready(_WORKERS - 1)
    async with traffic() as alone:
        settled = time.monotonic()
        await asyncio.sleep(_MEASURED_S)
    p99_alone_ms = alone.p99_ms(settled)

    await four.ready(_WORKERS)
    slow, model = field.workers[-1], four.models[-1]
    async with traffic() as load:
        await asyncio.sleep(2.0)
        model.pace(_SLOWER * SECONDS)
        slowed = time.monotonic()
        await asyncio.sleep(_NOTICED_S + _MEASURED_S)
        model.pace(SECONDS)
        recovered = time.monotonic()
        back_s = await _back(four, load, slow, recovered)
    noticed = slowed + _NOTICED_S
    for each in (alone, load):
        row.load(each)
    p99_ms = load.p99_ms(noticed, recovered)
    row.at_most("p99, divided by that of the three alone", p99_ms / p99_alone_ms, _MOST_P99)
    share = four.share(load, slow, noticed, recovered)
    row.at_most(
        f"its share of a quarter, from {_NOTICED_S:.0f} s on", 100 * share, _MOST_SHARE, " %"
    )
    row.at_most(f"back to {_BACK_SHARE:.0%} of a quarter after", back_s, _BACK_S, " s")
    row.note(
        f"p99 {p99_alone_ms:.0f} ms with three alone, "
        f"{load.p99_ms(slowed, noticed):.0f} ms in the first {_NOTICED_S:.0f} s, "
        f"{p99_ms:.0f} ms afterwards; share of a quarter in each second: "
        + ", ".join(
            f"{four.share(load, slow, slowed + second, slowed + second + 1):.2f}"
            for second in range(int(_NOTICED_S + _MEASURED_S))
        )
    )
    row.check()


async def _back(four: Four, load: Load, worker: Worker, since: float) -> float:
    """Wait until a worker's share of two seconds is what it should be; how long that took."""
    while True:
        await asyncio.sleep(0.1)
        now = time.monotonic()
        share = four.share(load, worker, max(since, now - 2.0), now)
        if share >= _BACK_SHARE or now - since > _BACK_S:
            return now - since
