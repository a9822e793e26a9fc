"""Workers at one Unix socket: one that is killed, one that is drained, and their successor."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from fingerpost.client import Client
from fingerpost.errors import UnknownService
from tests.support.digits import Digits
from tests.support.processes import Process, Processes
from tests.support.same_host import connections_at
from tests.support.waiting import until


async def test_the_next_worker_takes_the_socket_over(
    processes: Processes, digits: Digits, short_folder: Path
) -> None:
    """Nothing fails: the former one serves those that know it, and clients find the next one."""
    path = short_folder / "fingerpost.sock"
    registry = processes.registry()

    def worker() -> Process:
        return processes.worker(registry, digits.model, "--uds", path, "--lease", 0.5)

    killed = worker()
    await until(path.exists)
    killed.signal(signal.SIGKILL)
    killed.wait()
    assert path.is_socket()  # which nobody listens at
    served: set[str] = set()
    ended = asyncio.Event()

    async def ask(client: Client) -> None:
        while not ended.is_set():
            served.add((await client.classify(digits.images[0], "digits")).worker)

    async def listed(client: Client) -> bool:
        try:
            return bool((await client.resolve("digits")).instances)
        except UnknownService:
            return False

    async with Client(registry=registry) as client:
        first = worker()
        await until(lambda: listed(client))
        await client.classify(digits.images[0], "digits")
        assert connections_at(path)
        asking = asyncio.create_task(ask(client))
        second = worker()
        await until(lambda: len(served) == 2)
        first.signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait) == 0
        served.clear()
        await until(lambda: len(served) == 1)
        assert connections_at(path)
        ended.set()
        await asking
        assert client.stats.retries == {}
        second.signal(signal.SIGTERM)
        assert await asyncio.to_thread(second.wait) == 0
    assert list(short_folder.iterdir()) == []
