"""`python -m benchmarks.zeromq`: images by ZeroMQ against HTTP, in turn, to the same worker.

One worker whose model does nothing, with both ports; a client of each kind in this process. Besides
the rates the record has the processor time of both processes for an image, which says the same on a
machine that others use.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
from contextlib import ExitStack

import zmq

from benchmarks.harness.environments import ROOT
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running
from benchmarks.harness.slices import CONNECTIONS, send_images, slice_of, worker
from fingerpost.client import Client, ClientConfig
from fingerpost.errors import FingerpostError

_SIZES = {"20 KB": 20_000, "640 KB": 640_000}
_WAYS = ("http", "zmq")


async def _measure(
    registry: str, process: int, seconds: float, pairs: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    clients = {
        name: Client(registry=registry, config=ClientConfig(transport=name)) for name in _WAYS
    }
    await _registered(clients["http"])
    figures: dict[str, dict[str, float]] = {}
    ratios: dict[str, dict[str, float]] = {}
    for size, count in _SIZES.items():
        body = os.urandom(count)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in _WAYS}
        for client in clients.values():
            await send_images(client, body, seconds)
        for pair in range(pairs):
            for name in _WAYS if pair % 2 else _WAYS[::-1]:
                taken[name].append(await slice_of(clients[name], process, body, seconds))
        for name, slices in taken.items():
            figures[f"{size}: {name}"] = {
                key: statistics.median(each[key] for each in slices) for key in slices[0]
            }
        both = list(zip(taken["zmq"], taken["http"], strict=True))
        ratios[size] = {
            "rate": statistics.median(z["images/s"] / h["images/s"] for z, h in both),
            "cost": statistics.median(_cost_us(h) / _cost_us(z) for z, h in both),
        }
    for client in clients.values():
        await client.aclose()
    return figures, ratios


async def _registered(client: Client) -> None:
    """Wait until the worker has registered."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(FingerpostError):
                if (await client.resolve("nothing")).instances:
                    return
            await asyncio.sleep(0.1)


def _cost_us(figures: dict[str, float]) -> float:
    """The processor time of both ends for an image."""
    return figures["client CPU us/image"] + figures["worker CPU us/image"]


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.4)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--note", nargs="*", default=(), help="sentences for the record")
    given = parser.parse_args()
    with ExitStack() as stack:
        registry = free_port()
        program = [sys.executable, "-m", "fingerpost.deploy.cli"]
        stack.enter_context(running([*program, "registry", "--port", registry], cwd=ROOT))
        process, _ = stack.enter_context(worker(registry, "--zmq-port", 0))
        url = f"http://127.0.0.1:{registry}"
        figures, ratios = asyncio.run(_measure(url, process, given.seconds, given.pairs))
    kept = report(
        "zeromq",
        f"ZeroMQ against HTTP, {CONNECTIONS} images at a time, a model that does nothing",
        figures,
        [
            Goal(claim=f"{size}: {claim}", ratio=ratios[size][key], bound=bound)
            for size, bound in (("640 KB", 1.0), ("20 KB", 0.5))
            for claim, key in (
                ("images/s by ZeroMQ / by HTTP", "rate"),
                ("processor time of both ends by HTTP / by ZeroMQ", "cost"),
            )
        ],
        versions={"libzmq": zmq.zmq_version(), "pyzmq": zmq.pyzmq_version()},
        notes=given.note,
        settings={"seconds": given.seconds, "pairs": given.pairs, "images": CONNECTIONS},
    )
    return not kept


if __name__ == "__main__":
    sys.exit(main())
