"""One tenant sends ten times its share to workers that share their time by leases."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from fingerpost.client import Client, ClientConfig
from fingerpost.security.caller import Caller
from fingerpost.security.leases.config import LeaseConfig
from fingerpost.security.leases.signer import LeaseSigner
from tests.faults.field import Field
from tests.faults.load import SERVICE, Load
from tests.faults.table import Table
from tests.support.leases import KEY
from tests.support.processes import Processes
from tests.support.sleeper import Sleeper

# It compares latencies, which another scene beside it would change.
pytestmark = pytest.mark.alone

_WORKERS = 2
_QUEUE = 16
_HONEST = 3
_IMAGE_S = 0.1  # long beside what the machine's other work takes
_SHARE = _WORKERS / _IMAGE_S / (_HONEST + 1)  # images a second
_MEASURED_S = 8.0
# Of an image that waits for the run under way and its own, on a machine that has other work.
_MOST_P99 = 2.0


@pytest.mark.timeout(120)
async def test_a_tenant_at_ten_times_its_share(
    processes: Processes, tmp_path: Path, table: Table
) -> None:
    row = table.row("28", "a tenant at 10 x its share")
    row.done = (
        f"{_HONEST} tenants sent 0.7 of their shares, at random, to {_WORKERS} workers "
        f"(--require-lease, --max-queue {_QUEUE}) that sleep {_IMAGE_S * 1000:.0f} ms for each "
        "image, and a fourth one its whole share; then that one sent ten times its share"
    )
    keys = tmp_path / "keys.json"
    keys.write_bytes(KEY.public.encode())
    model = Sleeper(tmp_path / SERVICE, _IMAGE_S).folder
    field = Field(processes, model, processes.registry())
    options = "--max-batch", 1, "--max-queue", _QUEUE, "--require-lease", "--lease-keys", keys
    for _ in range(_WORKERS):
        await field.adopt(field.launch(*options))
    signer = LeaseSigner(lambda: KEY, LeaseConfig(life_s=600), time.time)

    def client(tenant: str) -> dict[str, Client]:
        token = signer.sign(Caller(tenant=tenant), SERVICE).token
        config = ClientConfig(lease=token, timeout_s=5.0)
        return {tenant: Client(registry=field.registry, config=config)}

    try:
        honest = [Load(client(f"honest-{n}"), rate_per_s=0.7 * _SHARE) for n in range(_HONEST)]
        async with honest[0], honest[1], honest[2]:
            async with Load(client("greedy"), rate_per_s=_SHARE) as usual:
                await asyncio.sleep(1.0)
                before = await _phase(honest)
            async with Load(client("greedy"), rate_per_s=10 * _SHARE, timeout_s=2.0) as greedy:
                await asyncio.sleep(1.0)
                beside = await _phase(honest)
                began = time.monotonic() - _MEASURED_S
                got = sum(each.ended >= began and not each.error for each in greedy.calls)
    finally:
        for worker in field.workers:
            worker.process.end()
    for each in (*honest, usual):
        row.load(each)
    row.at_most("p99 of the honest, divided by the one before", beside / before, _MOST_P99)
    rate = got / _MEASURED_S
    row.at_most("images/s that it got, divided by what the others left", _over(rate), 1.25)
    row.note(
        f"p99 of the honest {before * 1000:.0f} ms before and {beside * 1000:.0f} ms beside it; it "
        f"got {rate:.1f} images/s of {10 * _SHARE:.0f} that it sent; its refusals: "
        f"{greedy.retries.get('overloaded', 0)}"
    )
    row.check()


def _over(rate: float) -> float:
    return rate / (_WORKERS / _IMAGE_S - _HONEST * 0.7 * _SHARE)


async def _phase(loads: list[Load]) -> float:
    """Wait for some seconds; the p99 of the images answered meanwhile, in seconds."""
    began = time.monotonic()
    await asyncio.sleep(_MEASURED_S)
    ended = time.monotonic()
    found = sorted(latency for each in loads for latency in each.latencies(began, ended))
    return found[int(0.99 * (len(found) - 1))]
