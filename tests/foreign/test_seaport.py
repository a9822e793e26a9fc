"""The hub and the client of seaport, as npm has them, read by a proxy."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from pathlib import Path

import pytest
from tests.foreign.environments import npm_environment
from tests.support.colours import encoded
from tests.support.ports import free_port
from tests.support.processes import Processes

from fingerpost.client import Client

SERVERS = Path(__file__).parent / "servers"
pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_workers_of_a_real_hub_are_used_and_those_that_end_are_not(tmp_path):
    modules = npm_environment("seaport@2.0.9")
    with Processes(tmp_path) as processes:

        def node(script: str, *arguments: object):
            program = ("env", f"NODE_PATH={modules}", "node")
            return processes.start(SERVERS / script, *arguments, program=program)

        hub, ports = free_port(), [free_port() for _ in range(3)]
        node("hub.js", hub)
        workers = [node("worker.js", hub, port) for port in ports]
        registry = processes.registry()
        proxy = processes.proxy(registry, "--registry", f"seaport://127.0.0.1:{hub}")
        found = processes.workers(proxy, 3, "flowers")
        assert {each["host"] for each in found} == {"127.0.0.1"}
        assert {each["ports"]["http"] for each in found} == set(ports)
        assert {each["meta"]["version"] for each in found} == {"2"}

        async def stream() -> None:
            async with Client(proxy) as client:
                count = 0
                images = client.stream([encoded("red")] * 300, "flowers@2", concurrency=4)
                async for result in images:
                    assert result.error is None, result
                    assert (result.label, result.version) == ("daisy", "2")
                    count += 1
                    if count == 100:
                        workers[0].signal(signal.SIGKILL)
                assert count == 300

        asyncio.run(stream())
        processes.workers(proxy, 2, "flowers")
        image = tmp_path / "image.png"
        image.write_bytes(encoded("red"))
        line = f'curl -sf -F data=@{image} "$(curl -s {proxy})"'
        answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert answer.stdout == '{"daisy":0.9,"rose":0.1}'
