"""Slices of a second of load, for two ways to a worker that are measured in turn."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.environments import ROOT
from benchmarks.harness.servers import free_port, running
from benchmarks.worker.nothing import nothing_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fingerpost.client import Client

__all__ = ["CONNECTIONS", "cpu_s", "send_images", "slice_of", "worker"]

CONNECTIONS = 16


@contextmanager
def worker(registry: int, *options: object) -> Iterator[tuple[int, int]]:
    """A worker with these options; yields its process and port once it is ready."""
    port = free_port()
    command = [sys.executable, "-m", "fingerpost.deploy.cli", "worker", "--port", port, "--lease",
               0, "--model", nothing_model(), "--registry", f"http://127.0.0.1:{registry}",
               "--check", "ttl", *options]  # fmt: skip
    with running(command, cwd=ROOT, log=f"worker-{len(options)}") as process:
        yield process.pid, port


async def send_images(client: Client, body: bytes, seconds: float) -> int:
    """Send an image again and again, `CONNECTIONS` at a time; how many were answered."""
    end = time.perf_counter() + seconds
    count = 0

    async def connection() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await client.classify(body, "nothing", timeout_s=60)
            count += 1

    await asyncio.gather(*(connection() for _ in range(CONNECTIONS)))
    return count


def cpu_s(process: int) -> float:
    """The processor time of all threads of a process, in seconds."""
    return sum(
        int((task / "schedstat").read_text().split()[0]) / 1e9
        for task in Path(f"/proc/{process}/task").iterdir()
    )


async def slice_of(client: Client, process: int, body: bytes, seconds: float) -> dict[str, float]:
    """The rate of some seconds, and what an image costs the client and the worker."""
    start, cpu, theirs = time.perf_counter(), time.process_time(), cpu_s(process)
    count = await send_images(client, body, seconds)
    return {
        "images/s": count / (time.perf_counter() - start),
        "client CPU us/image": (time.process_time() - cpu) / count * 1e6,
        "worker CPU us/image": (cpu_s(process) - theirs) / count * 1e6,
    }
