"""Three servers and a client agent: what an election and a frozen server cost; `run-cluster`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from tests.support.consul_cluster import NODES, SERVERS
from tests.support.optional import not_none
from tests.support.ports import free_ports
from tests.support.waiting import until

from fingerpost.errors import RegistryError
from fingerpost.registry import open_registry
from fingerpost.registry.config import RegistryConfig

SCRIPT = Path(__file__).parents[3] / "deploy" / "consul" / "run-cluster"


async def test_a_leaders_death_empties_no_list_and_a_worker_registers_meanwhile(
    consul_cluster_process, connect, worker, service
):
    cluster = consul_cluster_process
    await asyncio.to_thread(cluster.start)
    registry = connect(cluster.url)
    first = await registry.register(worker.instance(service, "1"))
    watch = registry.watch(service)
    await watch.ready(5)
    seen = []

    async def look():
        async for view in watch:
            seen.append(len(view.instances))  # noqa: PERF401 (the loop never ends)

    looking = asyncio.create_task(look())
    leader = cluster.leader()
    await asyncio.to_thread(cluster.kill, leader)

    async def registered():
        try:
            return await registry.register(worker.instance(service, "2"))
        except RegistryError:
            return None

    second = await until(registered, within_s=20)
    await until(lambda: len(watch.view.instances) == 2)
    assert 0 not in seen
    assert cluster.leader() in set(SERVERS) - {leader}

    # A frozen follower: the agent asks another server, or the call ends by its deadline.
    follower = next(each for each in SERVERS if each not in (leader, cluster.leader()))
    cluster.restart(leader)
    await asyncio.to_thread(cluster.wait_until_formed)
    cluster.freeze(follower)

    async def answered():
        try:
            return (await registry.list(service)).instances
        except RegistryError:
            return None

    assert len(await until(answered, within_s=20)) == 2
    cluster.cont(follower)

    assert 0 not in seen

    # The client agent keeps its services on disk, and is back with them. Their checks start as
    # critical, so that for about a second they are off the list.
    await asyncio.to_thread(cluster.kill, "client")
    assert len(watch.view.instances) == 2
    cluster.restart("client")
    await asyncio.to_thread(cluster.wait_until_formed)

    async def all_back():
        return len(await answered() or ()) == 2

    await until(all_back, within_s=20)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    await first.deregister()
    await second.deregister()


async def test_run_cluster_says_what_a_user_needs_and_leaves_no_process(tmp_path, worker):
    ports = free_ports(4, tuple(f"127.0.0.{number}" for number in (1, 2, 3, 4)))
    names = ("--https-port", "--dns-port", "--server-port", "--serf-port")
    options = [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))]
    folder = tmp_path / "a cluster"
    process = await asyncio.create_subprocess_exec(
        SCRIPT, *options, "--services", "digits cats", folder, stdout=subprocess.PIPE
    )
    try:
        output = await asyncio.wait_for(
            not_none(process.stdout).readuntil(b"Ctrl-C ends it.\n"), 60
        )
        children = psutil.Process(process.pid).children(recursive=True)
        agents = [each for each in children if each.name() == "consul"]  # what else is there ends
        assert len(agents) == len(NODES)
        said = dict(re.findall(r'export (\w+)="?([^"\n]+)', output.decode()))
        for path in (folder / "tokens").iterdir():
            assert path.stat().st_mode & 0o077 == 0, f"{path} is for its owner only"
            assert not path.read_text() or path.read_text().strip() not in output.decode()
        reader = open_registry(
            said["FINGERPOST_REGISTRY"],
            RegistryConfig(
                token_file=said["FINGERPOST_REGISTRY_TOKEN_FILE"],
                ca_file=said["FINGERPOST_REGISTRY_CA_FILE"],
                cert_file=said["FINGERPOST_REGISTRY_CERT_FILE"],
                key_file=said["FINGERPOST_REGISTRY_KEY_FILE"],
            ),
        )
        assert not (await reader.list("digits")).known
        await reader.aclose()
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 20)
    assert process.returncode == 0
    assert not [each for each in agents if each.is_running()]


@pytest.mark.shell
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage"),
        (["--nonsense", "x"], "--nonsense"),
        (["--only", "nonsense", "x"], "nonsense"),
        (["--services", "Bad/Name", "x"], "Bad/Name"),
        (["--https-port"], "needs a value"),
        (["a", "b"], "one DIR"),
    ],
    ids=str,
)
def test_run_cluster_says_what_is_wrong_with_its_arguments(tmp_path, arguments, said):
    run = subprocess.run([SCRIPT, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode != 0
    assert said in run.stderr
    assert not list(tmp_path.iterdir())
