"""What happens to leases: their key is changed, nobody gives them any more, and forged ones."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fingerpost.deploy.key_rotation import KeyRotation, RegistryKeys
from fingerpost.registry import open_registry
from tests.faults.leased import LIFE_S, Leased
from tests.faults.load import SERVICE, Load
from tests.faults.table import Table
from tests.support.consul_process import ConsulProcess
from tests.support.leases import claims_of, header_of
from tests.support.optional import not_none
from tests.support.processes import Processes
from tests.support.waiting import until

_FLOOD_PER_S = 100.0  # at each worker, and at the proxy
_MEASURED_S = 4.0
_GROWTH_MB = 16.0
_BACK_S = 20.0
_P99_MS = 1000.0  # without the wait of a second that a refusal asks for


@pytest.fixture(scope="module")
def started() -> Iterator[list[Leased]]:
    clusters: list[Leased] = []
    yield clusters
    for each in clusters:
        each.end()


@pytest.fixture
async def leased(
    started: list[Leased], processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> Leased:
    """One cluster beside an embedded registry, for the rows that leave it as it was."""
    if not started:
        folder = tmp_path_factory.mktemp("leased")
        started.append(await Leased.start(processes, folder, processes.registry()))
    return started[0]


@pytest.mark.timeout(90)
async def test_a_key_that_is_rotated(leased: Leased, table: Table) -> None:
    row = table.row("25", "the key of leases rotated")
    registry = open_registry(leased.field.registry)
    rotation = KeyRotation(leased.key, RegistryKeys(registry))
    clients = {name: leased.client() for name in ("one", "another")}
    try:
        old = (await rotation.add()).kid
        async with leased.field.traffic(clients, pause_s=0.05) as load:
            new = (await rotation.publish()).kid
            both = [frozenset((old, new))] * 2
            await until(lambda: leased.accepted() == both, "the workers know both")
            await rotation.sign()
            await until(lambda: _kids(leased, load) == {new}, "the clients have new leases")
            signed_at = time.monotonic()
            await rotation.retire()
            await until(lambda: leased.accepted() == [frozenset((new,))] * 2, "the old is gone")
            await asyncio.sleep(1.0)
            after = sum(each.began > signed_at and not each.error for each in load.calls)
    finally:
        await registry.aclose()
    row.load(load)
    row.at_most("slowest image", load.latencies(0.0)[-1], load.timeout_s, " s")
    row.at_most("images that were sent twice", sum(load.retries.values()), 0)
    row.done = (
        "`fingerpost keys rotate`, step by step, under load by two clients of a proxy whose leases "
        f"last {LIFE_S:.0f} s: another key published, read by all, signed with, and the old one "
        "withdrawn when no client had a lease of it"
    )
    row.note(f"{after} images with leases of the new key, also after the old one was withdrawn")
    assert after > 50
    row.check()


@pytest.mark.timeout(90)
async def test_a_flood_of_bad_tokens(
    leased: Leased, processes: Processes, table: Table, tmp_path: Path
) -> None:
    row = table.row("29", "a flood of bad tokens")
    clients = {name: leased.client() for name in ("one", "another")}
    workers = [worker.address for worker in leased.field.workers]
    file = tmp_path / "lease"
    async with leased.field.traffic(clients, pause_s=0.05) as load:
        began = time.monotonic()
        await asyncio.sleep(_MEASURED_S)
        file.write_text(next(iter(leased.leases(load))))
        before, memory = time.monotonic(), _rss_mb(leased)
        flood = processes.start(
            *(_FLOOD_PER_S, file, *workers, leased.proxy.removeprefix("http://")),
            program=(sys.executable, "-m", "tests.support.flood"),
        )
        await until(lambda: "flooding" in flood.output(), "the flood has begun")
        flooded, first = time.monotonic(), leased.leases(load)
        # Until the clients have had to show leases that the workers had not seen.
        await until(lambda: not first & leased.leases(load), "all leases are new", within_s=20.0)
        await asyncio.sleep(_MEASURED_S)
        # A client that comes only now, to workers that see its lease for the first time.
        late = leased.client()
        async with Load({"a client that comes late": late}, concurrency=2, pause_s=0.05) as more:
            await more.settle(leased.field.addresses, calls=20)
        ended, grown = time.monotonic(), _rss_mb(leased) - memory
        flood.signal(signal.SIGTERM)
        flood.wait()
    answers = {
        address: Counter(each)
        for address, each in json.loads(flood.output().splitlines()[-1]).items()
    }
    for each in (load, more):
        row.load(each)
    row.at_most("slowest image", load.latencies(0.0)[-1], load.timeout_s, " s")
    bad = sum(sum(each.values()) for each in answers.values())
    row.at_most(
        "bad tokens that were let in",
        sum(count for each in answers.values() for code, count in each.items() if code < "400"),
        0,
    )
    row.at_most("p99 in the flood", load.p99_ms(flooded, ended), _P99_MS, " ms")
    row.at_most("memory that workers grew by", grown, _GROWTH_MB, " MB")
    row.done = (
        f"{_FLOOD_PER_S:.0f} changed leases a second to each of two workers, and as many made-up "
        "API keys to the proxy, all from the clients' own address, under load by two clients "
        "whose leases were renewed meanwhile, and by one that came late"
    )
    row.note(
        f"{bad} bad tokens in {ended - flooded:.0f} s; p99 {load.p99_ms(began, before):.0f} ms "
        "before"
    )
    assert bad > 50 * (ended - flooded)
    row.check()


@pytest.mark.timeout(120)
async def test_proxy_and_registry_dead_for_two_leases(
    processes: Processes, table: Table, consul_binary: str, tmp_path: Path
) -> None:
    row = table.row("27", "proxy and registry dead for two leases")
    agent = ConsulProcess(consul_binary, tmp_path / "consul.log")
    agent.start()
    program = (sys.executable, "-m", "tests.support.leased_worker")
    leased = await Leased.start(
        processes,
        tmp_path,
        agent.url,
        lambda field: processes.start(field.registry, SERVICE, program=program),
    )
    clients = {name: leased.client() for name in ("one", "another")}
    try:
        async with leased.field.traffic(clients, concurrency=4, pause_s=0.1) as load:
            dead_at = time.monotonic()
            agent.stop()
            not_none(leased.process).end()
            ends_at = dead_at + min(map(_left_s, leased.leases(load)))
            await asyncio.sleep(2 * LIFE_S)
            back_at = time.monotonic()
            agent.start()
            await leased.start_proxy()
            await until(lambda: _good(load, back_at) > 50, "images are answered again")
    finally:
        leased.end()
        agent.stop()
    expired = [each for each in load.failed if each.error.startswith("LeaseExpired")]
    others = [each.error for each in load.failed if not each.error.startswith("LeaseExpired")]
    row.count(len(load.calls) - len(expired), others)
    good = [each.ended for each in load.calls if not each.error]
    row.at_most("refused before the lease had ended", sum(e.ended < ends_at for e in expired), 0)
    row.at_most("slowest `lease_expired`", max(each.latency_s for each in expired), 5.0, " s")
    row.at_most(
        "first image after both had come back",
        min(each for each in good if each > back_at) - back_at,
        _BACK_S,
        " s",
    )
    row.done = (
        f"A proxy whose leases last {LIFE_S:.0f} s and a Consul agent that keeps nothing were "
        f"killed under load, and started again {2 * LIFE_S:.0f} s later. The workers here allow "
        "for clocks 0.5 s off, not 30 s"
    )
    going = max(each for each in good if each < back_at) - dead_at
    row.note(
        f"The clients went on for {going:.1f} s, then got {len(expired)} x `lease_expired`, and "
        "came back by themselves"
    )
    assert expired
    row.check()


def _kids(leased: Leased, load: Load) -> set[str]:
    """The keys that have signed what the clients carry."""
    return {header_of(each)["kid"] for each in leased.leases(load)}


def _left_s(lease: str) -> float:
    return float(claims_of(lease)["exp"]) - time.time()


def _good(load: Load, since: float) -> int:
    return sum(each.began > since and not each.error for each in load.calls)


def _rss_mb(leased: Leased) -> float:
    """Of the worker that has most."""
    return max(psutil.Process(each.pid).memory_info().rss / 1e6 for each in leased.field.workers)
