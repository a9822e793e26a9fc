"""`python -m benchmarks.client`: the client against a bare aiohttp loop, with the same worker.

The worker costs next to nothing, so that the client is what is measured; it is listed twice, so
that there is a choice and the client asks for load reports. Besides images a second, which other
load on the machine disturbs, the CPU time of this process for an image is compared.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.harness.environments import ROOT
from benchmarks.harness.results import Goal, in_turn, report
from fingerpost.client import Client
from fingerpost.registry import Catalog, Instance, ModelInfo, Snapshot, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_CONNECTIONS = 16
_SIZES = {"20 KB": (20_000, 0.75), "640 KB": (640_000, 0.9)}


class OneList:
    """A registry that knows one list of workers, and never another."""

    def __init__(self, port: int) -> None:
        self._instances = tuple(
            Instance(
                id=name,
                service="digits",
                host="127.0.0.1",
                ports={"http": port},
                models=(ModelInfo(name="digits", versions=("1",)),),
            )
            for name in ("a", "b")
        )
        self._watches: list[Watch[Snapshot]] = []

    def watch(self, service: str) -> Watch[Snapshot]:
        """See `Registry.watch`."""
        if not self._watches:
            self._watches.append(Watch(self._poll, name=service).start())
        return self._watches[0]

    async def catalog(self) -> Catalog:
        """See `Registry.catalog`."""
        return Catalog(services=("digits",), index=1, taken_at=0.0)

    async def aclose(self) -> None:
        """See `Registry.aclose`."""
        for watch in self._watches:
            await watch.aclose()

    async def _poll(self, index: int, wait_s: float) -> tuple[Snapshot, int]:
        if index:
            await asyncio.sleep(wait_s)
        snapshot = Snapshot(
            service="digits", instances=self._instances, known=True, index=1, taken_at=0.0
        )
        return snapshot, 1


async def _loop(send: Callable[[], Awaitable[None]], seconds: float) -> dict[str, float]:
    await send()
    count = 0
    start, cpu = time.perf_counter(), time.process_time()

    async def connection() -> None:
        nonlocal count
        while time.perf_counter() - start < seconds:
            await send()
            count += 1

    await asyncio.gather(*(connection() for _ in range(_CONNECTIONS)))
    return _figures(count, time.perf_counter() - start, time.process_time() - cpu)


def _figures(count: int, seconds: float, cpu_s: float) -> dict[str, float]:
    return {"images/s": count / seconds, "CPU us/image": cpu_s / count * 1e6}


async def bare(port: int, body: bytes, seconds: float) -> dict[str, float]:
    """A loop such as anyone would write."""
    url = f"http://127.0.0.1:{port}/v1/classify/digits?top=5"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send() -> None:
            async with session.post(url, data=body) as answer:
                answer.raise_for_status()
                await answer.json()

        return await _loop(send, seconds)


async def classify(port: int, body: bytes, seconds: float) -> dict[str, float]:
    """The same loop around `Client.classify`."""
    registry = OneList(port)
    async with Client(registry=registry) as client:

        async def send() -> None:
            await client.classify(body, "digits")

        figures = await _loop(send, seconds)
    await registry.aclose()
    return figures


async def stream(port: int, body: bytes, seconds: float) -> dict[str, float]:
    """`Client.stream`, which finds its concurrency itself."""
    registry = OneList(port)
    async with Client(registry=registry) as client:
        await client.classify(body, "digits")
        start, cpu = time.perf_counter(), time.process_time()

        def images():
            while time.perf_counter() - start < seconds:
                yield body

        count = 0
        async for result in client.stream(images(), "digits"):
            assert result.error is None
            count += 1
        figures = _figures(count, time.perf_counter() - start, time.process_time() - cpu)
    await registry.aclose()
    return figures


def _against(bare: dict[str, float], ours: dict[str, float]) -> dict[str, float]:
    """How much of the bare loop's speed is left; the second figure is the quieter one."""
    return {
        "images/s / bare loop's": ours["images/s"] / bare["images/s"],
        "bare loop's CPU / CPU an image": bare["CPU us/image"] / ours["CPU us/image"],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    worker = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.client.tiny_worker"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert worker.stdout is not None
        port = int(worker.stdout.readline())
        contestants = {
            f"{size}: {run.__name__}": partial(
                lambda run, body: asyncio.run(run(port, body, given.seconds)), run, b"x" * count
            )
            for size, (count, _) in _SIZES.items()
            for run in (bare, classify, stream)
        }
        figures = in_turn(contestants, rounds=given.rounds)
    finally:
        worker.terminate()
        worker.wait(10)
    goals = [
        Goal(claim=f"{size}: {name}, {claim}", ratio=ratio, bound=bound)
        for size, (_, bound) in _SIZES.items()
        for name in ("classify", "stream")
        for claim, ratio in _against(figures[f"{size}: bare"], figures[f"{size}: {name}"]).items()
    ]
    kept = report(
        "client-cost",
        "One process, 16 connections, a worker that costs next to nothing",
        figures,
        goals,
        versions={"aiohttp": version("aiohttp"), "httptools": version("httptools")},
        settings={"seconds": given.seconds, "rounds": given.rounds, "connections": _CONNECTIONS},
    )
    sys.exit(not kept)


if __name__ == "__main__":
    main()
