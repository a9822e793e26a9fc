"""`python -m benchmarks.lookups`: "where?" asked of Fingerpost's proxy, Consul and a seaport hub.

Four workers are registered with a real Consul agent. wrk asks over 32 connections: `GET /` of one
proxy, and of a proxy for each core behind one port; `/v1/health/service/X?passing` of Consul; and
an HTTP server on a seaport hub, which is how the article that Fingerpost started from did it. Then
the library's client sends images, and the proxy's lookups are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import urllib.request
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.consul import consul
from benchmarks.harness.load import get
from benchmarks.harness.node import node_packages
from benchmarks.harness.pictures import photo
from benchmarks.harness.processes import cpu_s
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for
from benchmarks.worker.nothing import nothing_model
from fingerpost.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

_WORKERS = 4
_CONNECTIONS = 32
_SERVICE = "nothing"
_FINGERPOST = [sys.executable, "-m", "fingerpost.deploy.cli"]
_ONE, _EACH = "Fingerpost, one proxy", "Fingerpost, a proxy per core"


def _workers(stack: ExitStack, registry: str) -> list[str]:
    """Real ones, of a model that does nothing; `host:port` of each."""
    ports = [free_port() for _ in range(_WORKERS)]
    processes = [
        stack.enter_context(
            running(
                [*_FINGERPOST, "worker", "--model", nothing_model(), "--port", port,
                 "--registry", registry, "--lease", 0]
            )
        )
        for port in ports
    ]  # fmt: skip
    for port, process in zip(ports, processes, strict=True):
        wait_for(f"http://127.0.0.1:{port}/health/ready", process)
    return [f"127.0.0.1:{port}" for port in ports]


def _proxies(stack: ExitStack, registry: str, count: int) -> tuple[str, list[int]]:
    """So many at one port; its URL, and their process ids."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    pids = []
    for _ in range(count):
        process = stack.enter_context(
            running(
                [sys.executable, "-m", "benchmarks.lookups.listening", port, *_FINGERPOST,
                 "proxy", "--registry", registry, "--service", _SERVICE]
            )
        )  # fmt: skip
        wait_for(url, process)
        pids.append(process.pid)
    return url, pids


def _seaport(stack: ExitStack, workers: list[str]) -> tuple[str, list[int], str]:
    """The hub's URL, its process id, and seaport's version."""
    node, modules = node_packages("seaport", "seaport")
    version = json.loads((modules / "seaport" / "package.json").read_text())["version"]
    port = free_port()
    process = stack.enter_context(
        running(
            [node, Path(__file__).with_name("hub.js"), free_port(), port, *workers],
            environ={"NODE_PATH": str(modules)},
        )
    )
    wait_for(f"http://127.0.0.1:{port}", process)
    return f"http://127.0.0.1:{port}/", [process.pid], version


def _measure(url: str, pids: list[int], seconds: float) -> dict[str, float]:
    before = cpu_s(*pids)
    load = get(url, connections=_CONNECTIONS, seconds=seconds)
    spent = cpu_s(*pids) - before
    return {"lookups/s": load.per_s, "CPU us": spent / load.requests * 1e6, "p99 ms": load.p99_ms}


async def _lookups(proxy: str, image: bytes, seconds: float) -> tuple[int, int]:
    """Images that a client sends in that time once it is under way, and lookups for them."""
    async with Client(proxy) as client:
        sent = 0
        ending = asyncio.Event()

        async def stream() -> None:
            nonlocal sent
            while not ending.is_set():
                await client.classify(image, _SERVICE)
                sent += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(stream())
            await asyncio.sleep(1)
            images, lookups = -sent, -await asyncio.to_thread(_answered, proxy)
            await asyncio.sleep(seconds)
            images, lookups = images + sent, lookups + await asyncio.to_thread(_answered, proxy)
            ending.set()
    return images, lookups


def _answered(proxy: str) -> int:
    """Lookups of every kind that a proxy has answered."""
    with urllib.request.urlopen(f"{proxy}/metrics", timeout=30) as answer:  # noqa: S310 - loopback
        families = text_string_to_metric_families(answer.read().decode())
    return sum(
        int(sample.value)
        for family in families
        for sample in family.samples
        if sample.name == "fingerpost_proxy_lookups_total"
    )


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    given = parser.parse_args()
    seconds = given.seconds
    with ExitStack() as stack:
        agent = stack.enter_context(consul())
        workers = _workers(stack, registry := f"consul://{agent.url.removeprefix('http://')}")
        one, one_pid = _proxies(stack, registry, 1)
        each, each_pids = _proxies(stack, registry, os.cpu_count() or 1)
        hub, hub_pid, seaport = _seaport(stack, workers)
        asked = f"{agent.url}/v1/health/service/{_SERVICE}?passing"
        contestants: dict[str, Callable[[], dict[str, float]]] = {
            _ONE: partial(_measure, f"{one}/", one_pid, seconds),
            _EACH: partial(_measure, f"{each}/", each_pids, seconds),
            "Consul": partial(_measure, asked, [agent.pid], seconds),
            "seaport": partial(_measure, hub, hub_pid, seconds),
        }
        figures = in_turn(contestants, rounds=given.rounds)
        image = photo(320, 240, 20).read_bytes()
        images, lookups = asyncio.run(_lookups(one, image, seconds))
    rate = {name: row["lookups/s"] for name, row in figures.items()}
    kept = report(
        "lookups",
        f"Lookups a second, {_WORKERS} workers registered, {_CONNECTIONS} connections",
        figures,
        [
            Goal(claim="one proxy / Consul", ratio=rate[_ONE] / rate["Consul"], bound=3),
            Goal(claim="a proxy per core / seaport", ratio=rate[_EACH] / rate["seaport"], bound=1),
            Goal(
                claim="lookups per image, the library's client under way",
                ratio=lookups / images,
                bound=0,
                at_most=True,
            ),
        ],
        versions={"Consul": agent.version, "seaport": seaport},
        settings={
            "rounds": given.rounds, "seconds": seconds, "connections": _CONNECTIONS,
            "images_sent": images,
        },
        notes=[
            "wrk shares the machine's cores with what it measures; `CPU us` is what a lookup takes "
            "of the server's processes alone.",
            "seaport's hub is one process by design. Consul's answer is JSON about all workers, "
            "the others name one.",
            "A client holds one question open, which is renewed every 20 s, whatever it sends.",
        ],
    )  # fmt: skip
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
