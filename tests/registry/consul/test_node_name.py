"""A worker on a machine whose name in Consul another one has."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from tests.support.ports import free_ports
from tests.support.waiting import until, until_blocking

from fingerpost.errors import RegistryUnreachable
from fingerpost.registry import RegistryConfig, open_registry
from fingerpost.registry.consul.http import ConsulHttp
from fingerpost.registry.consul.node_name import name_taken
from fingerpost.registry.credentials import Token

pytestmark = pytest.mark.consul


class Agents:
    """Agents on loopback, each with ports of its own, that join the first one."""

    def __init__(self, binary: str, folder: Path, stack: ExitStack) -> None:
        self._binary, self._folder, self._stack = binary, folder, stack
        self._joined: list[str] = []
        self._ports = free_ports(9)  # all at once: an agent takes its own a while after its start

    def start(self, name: str, **more: object) -> str:
        """Start one, and return its URL."""
        http, serf, server = (self._ports.pop() for _ in range(3))
        others = self._joined[:2]  # one that joins itself is content with that
        self._joined.append(f"127.0.0.1:{serf}")
        folder = self._folder / str(serf)
        folder.mkdir()
        config = {
            "node_name": name, "bind_addr": "127.0.0.1", "data_dir": str(folder),
            "retry_join": others, "retry_interval": "500ms", "log_level": "warn",
            "ports": {"http": http, "serf_lan": serf, "server": server, "serf_wan": -1,
                      "dns": -1, "grpc": -1},
            "performance": {"raft_multiplier": 1}, "disable_update_check": True, **more,
        }  # fmt: skip
        file = folder / "agent.json"
        file.write_text(json.dumps(config))
        process = subprocess.Popen(
            [self._binary, "agent", f"-config-file={file}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        return f"http://127.0.0.1:{http}"


@pytest.fixture
def agents(consul_binary: str, tmp_path: Path) -> Iterator[Agents]:
    with ExitStack() as stack:
        yield Agents(consul_binary, tmp_path, stack)


def leader(url: str) -> str:
    try:
        with urlopen(f"{url}/v1/status/leader", timeout=2) as answer:  # noqa: S310 - loopback
            return str(json.load(answer))
    except (OSError, ValueError):
        return ""


async def test_two_machines_of_one_name(agents: Agents, worker: Any, service: str) -> None:
    """Servers refuse the second one; its own agent takes registrations, which nobody sees."""
    first = agents.start("gpu-6", server=True, bootstrap_expect=2)
    second = agents.start("gpu-7", server=True, bootstrap_expect=2)
    await asyncio.to_thread(until_blocking, lambda: leader(first), within_s=60)
    twin = agents.start("gpu-7")
    await asyncio.to_thread(until_blocking, lambda: leader(twin), within_s=60)

    async def problem(url: str) -> str:
        http = ConsulHttp(url, token=Token(None, None))
        try:
            return await name_taken(http)
        finally:
            await http.aclose()

    assert "has the name gpu-7 in Consul" in await until(lambda: problem(twin))
    assert await problem(second) == ""
    registry = open_registry(twin, RegistryConfig())
    instance = worker.instance(service, "1")
    try:
        with pytest.raises(RegistryUnreachable) as caught:
            await registry.register(instance)
    finally:
        await registry.aclose()
    assert "another machine, 127.0.0.1, has the name gpu-7" in caught.value.message
    assert "hostnamectl set-hostname" in caught.value.message
