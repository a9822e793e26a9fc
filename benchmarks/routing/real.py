"""`python -m benchmarks.routing.real`: policies and HAProxy with real workers of unequal speed.

Four worker processes with default options sleep 10, 20, 80 and 160 ms for each image of a batch, so
that the time is linear in the batch, as on most CPUs: 169 images/s together, and hardly any
processor time. Four clients in one process send images of 20 KB. First an open loop: images are due
at random times, at 70 % of that rate, and a latency counts from when its image was due. Then a
closed loop: eight images at a time. HAProxy gets the same load from the same clients. An image that
takes 5 s has failed, and counts as 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from itertools import count
from statistics import fmean
from typing import TYPE_CHECKING, Final

from benchmarks.harness.environments import CACHE, debian_tool
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for
from fingerpost.client import Client, ClientConfig
from fingerpost.client.routing import RoutingConfig
from fingerpost.errors import FingerpostError
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_SERVICE_MS: Final = (10, 20, 80, 160)
_CAPACITY: Final = sum(1000 / ms for ms in _SERVICE_MS)
_LOAD: Final = 0.7
_CLIENTS: Final = 4
_AT_ONCE: Final = 8
_WARM_UP_S: Final = 2.0
_TIMEOUT_S: Final = 5.0

_MODEL = """
import time

import numpy as np


class Sleeper:
    encoded = True

    def __init__(self, folder):
        self.scores = np.zeros((32, 1), np.float32)

    def predict(self, batch):
        time.sleep(len(batch) * {ms} / 1000)
        return self.scores[: len(batch)]
"""
# Twice: as it is usually set up, and with the limit that its manual recommends for servers that
# take few requests at a time. With it, requests wait in HAProxy for the first free server.
_HAPROXY = """
global
  maxconn 4096
defaults
  mode http
  balance leastconn
  option httpchk GET /health/ready
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  timeout queue 30s
listen usual
  bind 127.0.0.1:{usual}
{servers}
listen limited
  bind 127.0.0.1:{limited}
  default-server maxconn 1
{servers}
"""


def main() -> int:
    """Measure and report; return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing.real", description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    image = photo(320, 240, 20).read_bytes()
    haproxy = debian_tool("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1")
    with ExitStack() as stack:
        workers = [f"127.0.0.1:{port}" for port in _workers(stack)]
        usual, limited = _balancers(stack, haproxy, workers)
        targets = {
            "hot-cold": (workers, "hot-cold"),
            "C3": (workers, "c3"),
            "power of two": (workers, "power-of-two"),
            "round robin": (workers, "round-robin"),
            "HAProxy leastconn": ([usual], "hot-cold"),
            "HAProxy leastconn, maxconn 1": ([limited], "hot-cold"),
        }
        figures = in_turn(
            {
                target: partial(_measure, servers, policy, image, given.seconds, count(1))
                for target, (servers, policy) in targets.items()
            },
            rounds=given.rounds,
        )
    printed = subprocess.run(
        [*haproxy, "-v"], check=True, capture_output=True, text=True, timeout=30
    )
    kept = report(
        "routing-real",
        f"Workers of {', '.join(map(str, _SERVICE_MS))} ms: open loop at {_LOAD:.0%} of capacity, "
        f"closed loop of {_AT_ONCE}",
        figures,
        _goals(figures),
        versions={"fingerpost": __version__, "HAProxy": printed.stdout.split()[2]},
        settings={
            "service_ms": _SERVICE_MS,
            "clients": _CLIENTS,
            "seconds": given.seconds,
            "rounds": given.rounds,
            "image_bytes": len(image),
        },
    )
    return 0 if kept else 1


def _goals(figures: dict[str, dict[str, float]]) -> list[Goal]:
    def goal(other: str, figure: str, bound: float, *, at_most: bool = True) -> Goal:
        ratio = figures["hot-cold"][figure] / figures[other][figure]
        return Goal(
            claim=f"hot-cold / {other}, {figure}", ratio=ratio, bound=bound, at_most=at_most
        )

    goals = [goal("round robin", "open p99 ms", round(1 / 3, 3))]
    goals += [goal("power of two", f"open p{share} ms", 1.0) for share in (50, 90, 99)]
    goals += [goal("HAProxy leastconn", f"open {figure} ms", 1.0) for figure in ("mean", "p99")]
    goals += [goal("C3", f"open {figure}", 1.05) for figure in ("mean ms", "p50 ms", "p99 ms")]
    # Both keep the workers busy, so that they should be equal: within 5 %.
    return [
        *goals,
        *(
            goal(other, "closed images/s", 0.95, at_most=False)
            for other in ("power of two", "HAProxy leastconn")
        ),
    ]


def _workers(stack: ExitStack) -> list[int]:
    """Start the workers, and return their ports once they are ready."""
    program = [sys.executable, "-m", "fingerpost.deploy.cli"]
    registry = free_port()
    process = stack.enter_context(running([*program, "registry", "--port", registry]))
    wait_for(f"http://127.0.0.1:{registry}/v1/status/leader", process)
    started = []
    for ms in _SERVICE_MS:
        port = free_port()
        command = [
            *program, "worker", "--model", _model(ms), "--name", "sleeper", "--port", port,
            "--registry", f"http://127.0.0.1:{registry}", "--lease", 0,
        ]  # fmt: skip
        started.append((port, stack.enter_context(running(command, log=f"sleeper-{ms}"))))
    for port, process in started:
        wait_for(f"http://127.0.0.1:{port}/health/ready", process)
    return [port for port, _ in started]


def _model(ms: int) -> Path:
    folder = CACHE / "models" / f"sleeper-{ms}" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sleeper.py").write_text(_MODEL.format(ms=ms))
    (folder / "model.toml").write_text('framework = "python"\nclass = "sleeper:Sleeper"\n')
    return folder


def _balancers(stack: ExitStack, haproxy: Sequence[str], workers: Sequence[str]) -> list[str]:
    """Start HAProxy, and return its addresses, without and with a limit, once it answers."""
    ports = {"usual": free_port(), "limited": free_port()}
    servers = "\n".join(f"  server w{n} {worker} check" for n, worker in enumerate(workers))
    config = CACHE / "routing-haproxy.cfg"
    config.write_text(_HAPROXY.format(servers=servers, **ports))
    process = stack.enter_context(running([*haproxy, "-f", config, "-db"], log="haproxy"))
    for port in ports.values():
        wait_for(f"http://127.0.0.1:{port}/health/ready", process)
    return [f"127.0.0.1:{port}" for port in ports.values()]


def _measure(
    servers: Sequence[str], policy: str, image: bytes, seconds: float, rounds: Iterator[int]
) -> dict[str, float]:
    return asyncio.run(_loads(servers, policy, image, seconds, random.Random(next(rounds))))


async def _loads(
    servers: Sequence[str], policy: str, image: bytes, seconds: float, rng: random.Random
) -> dict[str, float]:
    """Run both loads; in the second the clients know the workers from the first."""
    config = ClientConfig(timeout_s=_TIMEOUT_S, routing=RoutingConfig(policy=policy))
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client(registry=f"static://{','.join(servers)}", config=config)
            )
            for _ in range(_CLIENTS)
        ]
        sender = _Sender(clients, image)
        await sender.open_loop(seconds, rng)
        opened = sorted(sender.latencies)
        failed = sender.failed
        await sender.closed_loop(seconds)
        closed = sorted(sender.latencies)
    return {
        **{f"open p{share} ms": _quantile_ms(opened, share) for share in (50, 90, 99)},
        "open mean ms": 1000 * fmean(opened),
        "open failed": failed,
        "closed images/s": (len(closed) - sender.failed) / seconds,
        **{f"closed p{share} ms": _quantile_ms(closed, share) for share in (50, 99)},
    }


def _quantile_ms(ordered: Sequence[float], percent: int) -> float:
    return 1000 * ordered[len(ordered) * percent // 100]


class _Sender:
    """Sends images, and keeps the latencies (seconds) of those due after the warm-up."""

    def __init__(self, clients: Sequence[Client], image: bytes) -> None:
        self._clients = clients
        self._image = image
        self._clock: Callable[[], float] = asyncio.get_running_loop().time
        self._counts = (0.0, 0.0)
        self.latencies: list[float] = []
        self.failed = 0

    async def open_loop(self, seconds: float, rng: random.Random) -> None:
        end = self._begin(seconds)
        due = self._clock()
        async with asyncio.TaskGroup() as group:
            while (due := due + rng.expovariate(_LOAD * _CAPACITY)) < end:
                await asyncio.sleep(max(0.0, due - self._clock()))
                group.create_task(self._send(rng.choice(self._clients), due))

    async def closed_loop(self, seconds: float) -> None:
        end = self._begin(seconds)

        async def one_by_one(client: Client) -> None:
            while (now := self._clock()) < end:
                await self._send(client, now)

        async with asyncio.TaskGroup() as group:
            for number in range(_AT_ONCE):
                group.create_task(one_by_one(self._clients[number % len(self._clients)]))

    def _begin(self, seconds: float) -> float:
        start = self._clock() + _WARM_UP_S
        self._counts = (start, start + seconds)
        self.latencies, self.failed = [], 0
        return start + seconds

    async def _send(self, client: Client, due: float) -> None:
        failed = False
        try:
            await client.classify(self._image, "sleeper", top=1)
        except FingerpostError:
            failed = True
        if due >= self._counts[0]:
            took_s = _TIMEOUT_S if failed else self._clock() - due
            self.latencies.append(min(took_s, _TIMEOUT_S))
            self.failed += failed


if __name__ == "__main__":
    raise SystemExit(main())
