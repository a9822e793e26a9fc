"""Three servers as in the article, kept in the registry by `fingerpost register`; one is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from fingerpost.client import Client
from tests.support.colours import encoded
from tests.support.ports import free_port
from tests.support.processes import Processes, get_json
from tests.support.waiting import until_blocking

SERVER = Path(__file__).parents[1] / "support" / "article_server.py"
RED = encoded("red")


def register(processes: Processes, registry: str, port: int, *more: object):
    server = (sys.executable, "-SP", SERVER, port)
    options = ("--service", "flowers", "--port", port, "--check", "http:/ping", "--lease", 0.5)
    return processes.start("register", "--registry", registry, *options, *more, "--", *server)


def test_no_image_is_lost_when_a_server_is_killed_and_curl_finds_the_others(tmp_path):
    with Processes(tmp_path) as processes:
        registry = processes.registry()
        proxy = processes.proxy(registry)
        ports = [free_port() for _ in range(3)]
        sidecars = [
            register(processes, registry, port, *(("--front", 0) if not number else ()))
            for number, port in enumerate(ports)
        ]
        processes.workers(proxy, 3, "flowers")
        pid = get_json(f"http://127.0.0.1:{ports[1]}/ping")["pid"]

        async def stream() -> list[str]:
            async with Client(proxy) as client:
                found = []
                async for result in client.stream([RED] * 600, "flowers", concurrency=8):
                    found.append(str(result.error or result.label))
                    if len(found) == 150:
                        os.kill(pid, signal.SIGKILL)
                    if len(found) == 300:
                        sidecars[2].signal(signal.SIGTERM)
                return found

        assert asyncio.run(stream()) == ["daisy"] * 600
        assert sidecars[1].wait() == 1
        assert "ended by SIGKILL: its entry was removed" in sidecars[1].output()
        assert sidecars[2].wait() == 0
        processes.workers(proxy, 1, "flowers")
        image = tmp_path / "image.png"
        image.write_bytes(RED)
        line = f'curl -sf -F data=@{image} "$(curl -s {proxy})"'
        answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
        assert answer.stdout == '{"daisy": 0.98, "rose": 0.02}'

        def nobody() -> bool:
            return not processes.workers_now(proxy, "flowers")

        sidecars[0].signal(signal.SIGINT)
        assert sidecars[0].wait() == 0
        until_blocking(nobody)


def test_wrong_arguments_are_said_in_one_line(tmp_path):
    with Processes(tmp_path) as processes:
        common = ("register", "--service", "flowers", "--port", 1)
        for more, says in (
            (("--check", "ping"), "check='ping': use http:/PATH"),
            (("--meta", "size"), "--meta 'size': use KEY=VALUE"),
            (("--", "/no/such"), "the server '/no/such' cannot be started"),
        ):
            process = processes.start(*common, *more)
            assert process.wait() == 1
            assert says in " ".join(process.output().split())
