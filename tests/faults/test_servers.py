"""Servers and the agent of a real cluster die and freeze: three servers and a client agent.

Workers register at the client agent, which one proxy watches too. A second proxy and the client
without a proxy watch servers, so that each way of losing sight is there in every row.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fingerpost.client import Client
from fingerpost.registry import (
    Registry,
    Watch,
    WatchConfig,
    open_registry,
)
from tests.faults.calls import Calls, entry_of, forget
from tests.faults.field import Field, http
from tests.faults.load import SERVICE, Load
from tests.faults.observed_lists import AtConsul, AtProxy, InWatch, ObservedLists
from tests.faults.table import Row, Table
from tests.support.consul_cluster import NODES, SERVERS, ConsulCluster
from tests.support.optional import not_none
from tests.support.processes import Processes
from tests.support.waiting import until

_DEAD_S = 60.0
_FROZEN_S = 30.0
_AGENT_DEAD_S = 20.0
# `ConsulRegistry`'s call_timeout_s; drain and deregister wait for the servers' answer for 1 s more.
_CALL_S = 3.0
_SETTLE_S = 1.0
_SLACK_S = 0.5


@pytest.fixture(scope="module")
def cluster(
    consul_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ConsulCluster]:
    """Consul's default raft multiplier of 5: an election takes some 14 s instead of 3."""
    folder = tmp_path_factory.mktemp("servers")
    with ConsulCluster(consul_binary, folder, raft_multiplier=5) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def servers(processes: Processes, model: Path, cluster: ConsulCluster) -> Field:
    return Field(processes, model, cluster.url, cluster.url_of("server1"))


@pytest.fixture(autouse=True)
async def whole(cluster: ConsulCluster, servers: Field) -> None:
    """Every row begins with a cluster of which nothing is dead or frozen, whatever went before."""
    for node in NODES:
        try:
            cluster.pid(node)
        except KeyError:
            cluster.restart(node)
        cluster.cont(node)
    await asyncio.to_thread(cluster.wait_until_formed, within_s=120.0)


@dataclass
class Scene:
    """What is under way while something breaks."""

    load: Load
    registry: Registry
    watches: dict[str, ObservedLists]

    @property
    def empty(self) -> int:
        return sum(each.empty for each in self.watches.values())

    def tell(self, row: Row, ids: frozenset[str], since: float) -> None:
        """Note what a failed row should say: who left a list, and for how long."""
        for name, instance, left, back in self.lost(ids):
            until = "for good" if back is None else f"until {back - since:+.2f} s"
            row.note(f"{instance} left the list {name} at {left - since:+.2f} s {until}")

    def lost(self, ids: frozenset[str]) -> list[tuple[str, str, float, float | None]]:
        """Each time that one of these left a list: which, who, when, and when it was back."""
        lost: list[tuple[str, str, float, float | None]] = []
        for name, observed in self.watches.items():
            for instance in sorted(ids):
                left: float | None = None
                had = False
                for at, names in observed.seen:
                    if instance in names:
                        if left is not None:
                            lost.append((name, instance, left, at))
                        had, left = True, None
                    elif had and left is None:
                        left = at
                if left is not None:
                    lost.append((name, instance, left, None))
        return lost


@asynccontextmanager
async def _scene(field: Field, cluster: ConsulCluster, watched: str) -> AsyncIterator[Scene]:
    """Load by three clients: by each proxy, and by a watch of the server named."""
    if field.straight != cluster.url_of(watched):
        field.straight = cluster.url_of(watched)
    await field.ready(3)
    second = await field.start_proxy(field.straight)
    await field.known(second)
    async with (
        aclosing(open_registry(field.straight)) as registry,
        AtProxy(field.proxy) as by_agent,
        AtProxy(second) as by_server,
        field.traffic(
            {
                "by the agent's proxy": Client(field.proxy),
                "by a server's proxy": Client(second),
                "by a watch of a server": Client(registry=registry),
            },
            concurrency=9,
        ) as load,
    ):
        watches: dict[str, ObservedLists] = {
            "at the agent's proxy": by_agent,
            "at a server's proxy": by_server,
            "in a watch of a server": InWatch(registry.watch(SERVICE)),
        }
        await asyncio.sleep(2.0)
        yield Scene(load, registry, watches)
    field.end_proxy(second)


async def _noticed(watch: Watch) -> float:
    """Wait until a watch has noticed the outage; return when that was."""
    await until(lambda: watch.error is not None, "the watch notices", within_s=60.0)
    return time.monotonic()


async def _all_again(field: Field, cluster: ConsulCluster) -> float:
    """Wait until there is a leader and exactly the workers are listed; how long it took.

    Servers that lost sight of each other may take a minute longer to call each other healthy:
    that is Consul's own affair, and `whole` waits for it.
    """
    began = time.monotonic()
    while True:
        # A leader that knows that it is one.
        with contextlib.suppress(OSError):
            await http("GET", f"{cluster.url}/v1/catalog/nodes?consistent")
            break
        assert time.monotonic() < began + 90.0, "no leader within 90 s"
        await asyncio.sleep(0.1)
    async with AtConsul(cluster.url) as consul:
        await consul.until(field.ids.__eq__, "all workers are listed", within_s=60.0)
    return time.monotonic() - began


@pytest.mark.timeout(420)
async def test_the_leader_is_killed_while_a_worker_registers(
    servers: Field, cluster: ConsulCluster, table: Table
) -> None:
    row = table.row("4", "Consul leader killed, a worker registering meanwhile")
    leader = not_none(cluster.leader())
    survivors = [each for each in SERVERS if each != leader]
    async with _scene(servers, cluster, survivors[0]) as scene:
        before = servers.ids
        early = servers.launch()
        await until(lambda: " loading " in early.output(), "the first worker loads its model")
        killed = time.monotonic()
        cluster.kill(leader)
        late = servers.launch()
        elected = asyncio.create_task(_elected(cluster, survivors))
        joined = await asyncio.gather(servers.insist(early), servers.insist(late))
        registered_s = time.monotonic() - killed
        no_leader_s = await elected - killed
        for worker, _ in joined:
            for name in scene.load.clients:
                await scene.load.used(worker.address, name)
        used_s = time.monotonic() - killed
        cluster.restart(leader)
        again_s = await _all_again(servers, cluster)
        await asyncio.sleep(2.0)
    row.done = (
        "The leader of three servers was killed under load (raft_multiplier 5); one worker had "
        "been started just before, one was started just after; the server came back afterwards"
    )
    row.load(scene.load)
    gave_up = [line for _, said in joined for line in said]
    row.at_most("workers whose start failed", len(gave_up), 0)
    row.at_most("lists that were empty", scene.empty, 0)
    row.at_most("healthy workers that left a list", len(scene.lost(before)), 0)
    row.note(
        f"No leader for {no_leader_s:.1f} s; both new workers were registered {registered_s:.1f} s "
        f"and used by all {used_s:.1f} s after the leader's death; whole again {again_s:.1f} s "
        "after the server's start"
    )
    scene.tell(row, before, killed)
    if gave_up:
        row.note(f"Errors of the workers: {'; '.join(gave_up)}")
    for worker, _ in joined:
        servers.kill(worker)
    await servers.known(servers.proxy)
    row.check()


@pytest.mark.timeout(420)
async def test_the_agent_is_killed(servers: Field, cluster: ConsulCluster, table: Table) -> None:
    row = table.row("8", "client agent `kill -9`")
    row.done = (
        f"The agent at which all workers are registered was killed under load for "
        f"{_AGENT_DEAD_S:.0f} s, so that the servers removed all of them; then it was started again"
    )
    async with _scene(servers, cluster, "server1") as scene:
        before = servers.ids
        async with AtConsul(cluster.url_of("server2")) as consul:
            killed = time.monotonic()
            cluster.kill("client")
            dropped = await consul.until(frozenset().__eq__, "the servers dropped all workers")
            await asyncio.sleep(_AGENT_DEAD_S - (time.monotonic() - killed))
            kept = [len(each.now) for each in scene.watches.values()]
            cluster.restart("client")
            again_s = await _all_again(servers, cluster)
            await until(
                lambda: not not_none(scene.registry.watch(SERVICE).view).retained,
                "no worker is retained any more",
            )
            await asyncio.sleep(2.0)
    row.load(scene.load)
    row.at_most("lists that were empty", scene.empty, 0)
    row.at_most("healthy workers that left a list", len(scene.lost(before)), 0)
    row.note(
        f"The servers removed the workers {dropped - killed:.1f} s later; in use at the end of "
        f"the outage: {kept} of 3; listed again {again_s:.1f} s after the agent's start"
    )
    if scene.lost(before):
        scene.tell(row, before, killed)
        row.note(f"Consul's passing list after the agent's death: {consul.lengths(killed)}")
    row.check()


@pytest.mark.timeout(420)
async def test_all_servers_are_frozen(servers: Field, cluster: ConsulCluster, table: Table) -> None:
    row = table.row("6", "all Consul servers frozen (SIGSTOP)")
    row.done = (
        f"All three servers were stopped for {_FROZEN_S:.0f} s under load, while every kind of "
        "registry call was made, at the agent and at a frozen server; then they were continued"
    )
    async with _scene(servers, cluster, "server1") as scene:
        before = servers.ids
        calls = Calls()
        async with (
            aclosing(open_registry(cluster.url)) as at_agent,
            aclosing(open_registry(cluster.url_of("server2"))) as at_server,
        ):
            entries = [
                await registry.register(entry_of(f"frozen-{number}"))
                for number, registry in enumerate((at_agent, at_server))
            ]
            for server in SERVERS:
                cluster.freeze(server)
            frozen = time.monotonic()
            try:
                watch = scene.registry.watch(SERVICE)
                noticing = asyncio.create_task(_noticed(watch))
                end = frozen + _FROZEN_S - 2 * (_CALL_S + _SETTLE_S)
                await asyncio.gather(
                    calls.make(at_agent, entries[0], "at the agent", end),
                    calls.make(at_server, entries[1], "at a server", end),
                )
                noticed = await noticing
                await asyncio.sleep(frozen + _FROZEN_S - time.monotonic())
            finally:
                for server in SERVERS:
                    cluster.cont(server)
            again_s = await _all_again(servers, cluster)
            for node in ("client", "server2"):
                await forget(cluster.url_of(node))
        await asyncio.sleep(2.0)
    row.load(scene.load)
    row.at_most("longest call", calls.longest(*calls.SINGLE), _CALL_S + _SLACK_S, " s")
    row.at_most("a watch's held poll", noticed - frozen, WatchConfig().deadline_s, " s")
    row.at_most(
        "longest drain or deregistration",
        calls.longest("drain", "deregister"),
        _CALL_S + _SETTLE_S + _SLACK_S,
        " s",
    )
    row.at_most("lists that were empty", scene.empty, 0)
    row.at_most("healthy workers that left a list", len(scene.lost(before)), 0)
    row.note(
        f"{calls.count} calls, the longest of each kind: {calls.text()}; whole again "
        f"{again_s:.1f} s after SIGCONT; a watch noticed after {noticed - frozen:.1f} s"
    )
    scene.tell(row, before, frozen)
    if calls.strange:
        row.note(f"Unexpected errors: {calls.strange}")
    assert not calls.strange, calls.strange
    row.check()


@pytest.mark.timeout(420)
async def test_all_servers_are_dead(servers: Field, cluster: ConsulCluster, table: Table) -> None:
    row = table.row("5", "all Consul servers dead")
    row.done = (
        f"All three servers were killed under load for {_DEAD_S:.0f} s, and a worker after 20 s; "
        "then they were started again"
    )
    async with _scene(servers, cluster, "server1") as scene:
        for server in SERVERS:
            cluster.kill(server)
        dead = time.monotonic()
        await asyncio.sleep(20.0)
        victim = servers.workers[0]
        killed = servers.kill(victim)
        await asyncio.sleep(dead + _DEAD_S - time.monotonic())
        alive_until = time.monotonic()
        for server in SERVERS:
            cluster.restart(server)
        again_s = await _all_again(servers, cluster)
        for observed in scene.watches.values():
            await observed.until(servers.ids.__eq__, "the watch has the two that are left")
        recovered_s = time.monotonic() - alive_until
        await asyncio.sleep(2.0)
    row.load(scene.load)
    late = scene.load.after_the_first_failure(victim.address, killed)
    went_on_s = max((each for each in late if each < 0.5), default=0.0)
    trials = sum(each >= 0.5 for each in late)
    row.at_most("a client went on sending to it for", went_on_s, 0.1, " s")
    # Ejected for 1, 2, 4, 8, 16 and 30 s, each give or take a quarter, then one trial.
    row.at_most("trials of the dead worker by each client", trials / len(scene.load.clients), 7)
    row.at_most("lists that were empty", scene.empty, 0)
    row.at_most("healthy workers that left a list", len(scene.lost(servers.ids)), 0)
    row.note(
        f"{len(scene.load.sent_to(victim.address, killed))} attempts at the dead worker in all; "
        f"whole again {again_s:.1f} s after the servers' start, all watches back after "
        f"{recovered_s:.1f} s"
    )
    scene.tell(row, servers.ids, dead)
    row.check()


async def _elected(cluster: ConsulCluster, survivors: list[str]) -> float:
    """When the survivors have a leader among them."""
    while await asyncio.to_thread(cluster.leader) not in survivors:
        await asyncio.sleep(0.1)
    return time.monotonic()
