"""`python -m benchmarks.grpc`: what a call of gRPC costs a worker, against a bare server of grpcio.

Both in turn, in slices of half a second, with 16 calls at a time over one connection from this
process. The figure is the processor time of the server for a call, which says the same on a machine
that others use.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import grpc

from benchmarks.grpc.echo import METHOD
from benchmarks.harness.environments import ROOT
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running
from benchmarks.harness.slices import CONNECTIONS, cpu_s, worker
from fingerpost.worker.grpc.schema.messages import message_class

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Call = Callable[[bytes], Awaitable[bytes]]

_SIZES = {"20 KB": 20_000, "640 KB": 640_000}
_OPTIONS = (("grpc.max_send_message_length", -1),)


def infer_request(count: int) -> bytes:
    """A `ModelInferRequest` of one image of so many bytes."""
    image = os.urandom(count)
    request = message_class("inference.ModelInferRequest")(model_name="nothing")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(len(image).to_bytes(4, "little") + image)
    message: bytes = request.SerializeToString()
    return message


async def _slice(call: Call, process: int, body: bytes, seconds: float) -> dict[str, float]:
    """The rate of some seconds, and what a call costs the server."""
    start, theirs, count = time.perf_counter(), cpu_s(process), 0
    end = start + seconds

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call(body)
            count += 1

    await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
    return {
        "calls/s": count / (time.perf_counter() - start),
        "server CPU us/call": (cpu_s(process) - theirs) / count * 1e6,
    }


async def _measure(
    servers: dict[str, tuple[int, int, str]], seconds: float, pairs: int
) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    figures: dict[str, dict[str, float]] = {}
    ratios: dict[str, float] = {}
    channels = {
        name: grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_OPTIONS)
        for name, (_, port, _) in servers.items()
    }
    calls: dict[str, Call] = {
        name: channel.unary_unary(servers[name][2]) for name, channel in channels.items()
    }
    for size, count in _SIZES.items():
        body = infer_request(count)
        taken: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
        for name, call in calls.items():
            async with asyncio.timeout(60):
                await channels[name].channel_ready()
            await _slice(call, servers[name][0], body, seconds)
        for pair in range(pairs):
            for name in list(servers)[:: 1 if pair % 2 else -1]:
                taken[name].append(await _slice(calls[name], servers[name][0], body, seconds))
        for name, slices in taken.items():
            figures[f"{size}: {name}"] = {
                key: statistics.median(each[key] for each in slices) for key in slices[0]
            }
        ratios[size] = statistics.median(
            bare["server CPU us/call"] / own["server CPU us/call"]
            for own, bare in zip(taken["worker"], taken["bare"], strict=True)
        )
    for channel in channels.values():
        await channel.close()
    return figures, ratios


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--pairs", type=int, default=20)
    given = parser.parse_args()
    registry, own, bare = free_port(), free_port(), free_port()
    with ExitStack() as stack:
        program = [sys.executable, "-m", "fingerpost.deploy.cli"]
        stack.enter_context(running([*program, "registry", "--port", registry], cwd=ROOT))
        process, _ = stack.enter_context(worker(registry, "--grpc-port", own))
        echo = [sys.executable, "-m", "benchmarks.grpc.echo", bare]
        other = stack.enter_context(running(echo, cwd=ROOT, log="grpc-echo"))
        infer = "/inference.GRPCInferenceService/ModelInfer"
        servers = {"worker": (process, own, infer), "bare": (other.pid, bare, METHOD)}
        figures, ratios = asyncio.run(_measure(servers, given.seconds, given.pairs))
    kept = report(
        "grpc",
        f"Calls of gRPC, {CONNECTIONS} at a time, a model that does nothing",
        figures,
        [
            Goal(claim=f"{size}: bare grpcio / worker, processor time", ratio=ratio, bound=0.7)
            for size, ratio in ratios.items()
        ],
        versions={"grpcio": grpc.__version__},
        settings={"seconds": given.seconds, "pairs": given.pairs, "calls": CONNECTIONS},
    )
    return not kept


if __name__ == "__main__":
    sys.exit(main())
