"""The cluster that things happen to: workers and a proxy as processes, and ways to hurt them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fingerpost.client import Client
from tests.faults.load import SERVICE, Load
from tests.support.ports import free_port
from tests.support.processes import Process, Processes, get_json
from tests.support.waiting import until

__all__ = ["Field", "Standby", "Worker", "exit_code", "http", "images_at"]

_IMAGES = re.compile(r'^fingerpost_worker_images_total\{model="(\S+)"\} (\S+)$', re.MULTILINE)
_READY = re.compile(r"ready at https?://(\S+) as (\S+)")


@dataclass(frozen=True)
class Worker:
    """A running `fingerpost worker`."""

    process: Process
    address: str
    id: str

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> float:
        """Send it a signal; return when that was."""
        os.kill(self.pid, number)
        return time.monotonic()


class Field:
    """Workers of one service at one agent, and a proxy that watches an agent.

    Args:
        processes: starts and ends all of them.
        model: what the workers serve.
        registry: URL of the agent that workers register at, and that the proxy watches.
        straight: URL of the agent that clients without a proxy watch; the same, if None.
    """

    def __init__(
        self, processes: Processes, model: Path, registry: str, straight: str | None = None
    ) -> None:
        self.processes = processes
        self.model = model
        self.registry = registry
        self.straight = straight or registry
        self.proxy = ""
        self.workers: list[Worker] = []
        self._proxies: dict[str, Process] = {}

    @property
    def ids(self) -> frozenset[str]:
        return frozenset(each.id for each in self.workers)

    @property
    def addresses(self) -> set[str]:
        return {each.address for each in self.workers}

    def launch(self, *options: object, registry: str | None = None) -> Process:
        """Start a worker, and do not wait for it."""
        return self.processes.worker(registry or self.registry, self.model, *options)

    async def adopt(self, process: Process) -> Worker:
        """Wait until a launched worker says that it is ready."""

        def ready() -> re.Match[str] | None:
            code = exit_code(process)
            assert code is None, f"the worker ended, {code}:\n{process.output()[-3000:]}"
            return _READY.search(process.output())

        match = await until(ready, "a worker is ready", within_s=60.0)
        worker = Worker(process, match[1], match[2])
        self.workers.append(worker)
        return worker

    async def ready(self, count: int = 3) -> None:
        """Bring it to so many workers, and to a proxy that knows all of them."""
        missing = [self.launch() for _ in range(count - len(self.workers))]
        for process in missing:
            await self.adopt(process)
        if not self.proxy:
            self.proxy = await self.start_proxy()
        await self.known(self.proxy)

    async def start_proxy(self, registry: str | None = None, *, port: int = 0) -> str:
        port = port or free_port()
        url = f"http://127.0.0.1:{port}"
        self._proxies[url] = self.processes.start(
            "proxy", "--port", port, "--registry", registry or self.registry, "--service", SERVICE
        )
        await until(lambda: get_json(f"{url}/health/ready"), "the proxy is ready", every_s=0.1)
        return url

    def end_proxy(self, url: str) -> None:
        """Kill a proxy that is not needed any more."""
        self._proxies.pop(url).end()

    async def known(self, proxy: str, timeout_s: float = 30.0) -> None:
        """Wait until the proxy tells of exactly the present workers."""

        async def listed() -> set[str]:
            answer = await asyncio.to_thread(get_json, f"{proxy}/v1/resolve/{SERVICE}")
            return {each["id"] for each in (answer or {}).get("instances", ())}

        end = time.monotonic() + timeout_s
        while (found := await listed()) != self.ids:
            assert time.monotonic() < end, f"the proxy tells of {found}, not {self.ids}"
            await asyncio.sleep(0.05)

    def kill(self, worker: Worker) -> float:
        """`kill -9`; return when that was."""
        self.workers.remove(worker)
        at = worker.signal(signal.SIGKILL)
        worker.process.wait()
        return at

    async def stand_by(
        self, folder: Path, port: str, model: str, version: str, check: str
    ) -> Standby:
        """A worker that has started, and takes the port at once when it is told to."""
        folder.mkdir()
        arguments = (folder, self.registry, check, port, model, version)
        program = (sys.executable, "-m", "tests.support.standby")
        process = self.processes.start(*arguments, program=program)
        await process_says(process, "standing by")
        return Standby(self, process, folder)

    async def insist(self, process: Process) -> tuple[Worker, list[str]]:
        """Adopt a launched worker; start it again, as a supervisor would, whenever it ends.

        Returns what those that ended said last, too.
        """
        said: list[str] = []
        while True:
            await until(
                lambda process=process: (
                    exit_code(process) is not None or _READY.search(process.output())
                ),
                "a worker is ready, or gives up",
                within_s=60.0,
            )
            if exit_code(process) is None:
                return await self.adopt(process), said
            said.append(process.output().strip().splitlines()[-1])
            process = self.launch()

    async def leave(self, worker: Worker) -> float:
        """SIGTERM, and wait for the end; return how long that took."""
        self.workers.remove(worker)
        at = worker.signal(signal.SIGTERM)
        await until(
            lambda: exit_code(worker.process) is not None, "a worker has left", within_s=40.0
        )
        assert exit_code(worker.process) == 0, worker.process.output()[-2000:]
        return time.monotonic() - at

    @asynccontextmanager
    async def traffic(
        self, clients: dict[str, Client] | None = None, **options: Any
    ) -> AsyncIterator[Load]:
        """Load by a client that asks the proxy and one that watches the registry; settled."""
        if clients is None:
            clients = {
                "by the proxy": Client(self.proxy),
                "by the registry": Client(registry=self.straight),
            }
        async with Load(clients, **options) as load:
            await load.settle(self.addresses)
            yield load


@dataclass(frozen=True)
class Standby:
    """A worker process that waits for its port: see `tests.support.standby`."""

    _field: Field
    _process: Process
    _folder: Path

    async def bind(self) -> None:
        """Take the port; it is not registered yet."""
        (self._folder / "bind").touch()
        await process_says(self._process, "listening")

    async def register(self) -> Worker:
        (self._folder / "register").touch()
        return await self._field.adopt(self._process)


async def process_says(process: Process, text: str) -> None:
    def said() -> bool:
        code = exit_code(process)
        assert code is None, f"the worker ended, {code}:\n{process.output()[-3000:]}"
        return text in process.output()

    await until(said, f"a worker says {text!r}", within_s=60.0)


def exit_code(process: Process) -> int | None:
    """What a process ended with; None while it runs."""
    try:
        return process.wait(0)
    except subprocess.TimeoutExpired:
        return None


async def http(method: str, url: str, body: Any = None) -> Any:
    """A raw request to an agent, as an operator's script sends it."""

    def send() -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            content = answer.read()
            return json.loads(content) if content.strip() else None

    return await asyncio.to_thread(send)


def images_at(address: str, model: str) -> float:
    """How many images a worker has classified with a model."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        counts = dict(_IMAGES.findall(answer.read().decode()))
    return float(counts.get(model, 0))
