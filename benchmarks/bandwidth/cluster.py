"""A registry, a proxy, balancers and workers, each worker on a host of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from benchmarks.bandwidth.balancers import BALANCERS, balancer
from benchmarks.harness.network import Network
from benchmarks.harness.servers import running
from benchmarks.worker.nothing import nothing_model

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

__all__ = ["CLIENTS", "WAYS", "Cluster", "cluster", "wait_inside"]

CLIENTS = 4
# How images can reach the workers; the relay and what follows it carry them through the hub.
WAYS = ("direct", "307 redirect", "two curl commands", "relay", *BALANCERS)
_PORT = 9000
_FINGERPOST = [sys.executable, "-m", "fingerpost.deploy.cli"]
_WARM_S = 2.0
# The slowest image there is, through a link that all share, and processes that start.
_SLACK_S = 180.0

_WAIT = """
import sys, time, urllib.request
for _ in range(600):
    try:
        urllib.request.urlopen(sys.argv[1], timeout=2); break
    except OSError: time.sleep(0.1)
else: sys.exit(sys.argv[1] + ' does not answer')
"""


class Cluster:
    """What stands on the network's hosts: all but the workers on `hub`.

    Args:
        network: with the hosts `hub`, `w0` and so on, `c0` and so on.
        workers: how many.
        wanted: ways of sending images, of `WAYS`.
        stack: ends the processes.

    Attributes:
        versions: of the balancers.
    """

    def __init__(
        self, network: Network, workers: int, wanted: Collection[str], stack: ExitStack
    ) -> None:
        self._network = network
        self._stack = stack
        self._workers = [f"w{number}" for number in range(workers)]
        hub = network.address["hub"]
        registry, proxy = f"http://{hub}:12481", f"http://{hub}:12480"
        self._start("hub", *_FINGERPOST, "registry", "--host", hub, "--allow-remote")
        self._wait("hub", f"{registry}/v1/status/leader")
        self._start("hub", *_FINGERPOST, "proxy", "--host", hub, "--registry", registry,
                    "--service", "nothing", "--relay")  # fmt: skip
        model = nothing_model()
        for worker in self._workers:
            self._start(worker, *_FINGERPOST, "worker", "--model", model, "--registry", registry,
                        "--host", network.address[worker], "--port", _PORT,
                        "--lease", 0)  # fmt: skip
        places = [f"{network.address[worker]}:{_PORT}" for worker in self._workers]
        for worker, place in zip(self._workers, places, strict=True):
            self._wait(worker, f"http://{place}/health/ready")
        self._wait("hub", proxy)
        self._ways = {
            "direct": ("direct", proxy),
            "307 redirect": ("redirect", proxy),
            "two curl commands": ("curl", proxy),
            "relay": ("post", f"{proxy}/v1/relay/nothing"),
        }
        self.versions: dict[str, str] = {}
        for name in BALANCERS:
            if name in wanted:
                made = balancer(name, hub, places)
                self._start("hub", *made.command)
                url = f"http://{hub}:{made.port}"
                self._wait("hub", f"{url}/health/ready")
                self._ways[name] = ("post", f"{url}/v1/classify/nothing")
                self.versions |= made.versions

    def load(self, way: str, image: Path, seconds: float, streams: int) -> dict[str, float]:
        """Images from all client hosts together, each with so many at a time.

        Returns:
            Mbit/s and images a second, and the bytes that reached the hub as a share of those
            that reached the workers.
        """
        before = self._received()
        loads: list[subprocess.Popen[str]] = []
        try:
            for number in range(CLIENTS):
                command = [
                    *self._network.inside(f"c{number}"), sys.executable, "-m",
                    "benchmarks.bandwidth.load", *self._ways[way], image, seconds, streams,
                ]  # fmt: skip
                loads.append(
                    subprocess.Popen(
                        [str(word) for word in command],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
            for each in loads:
                assert each.stdout is not None
                if each.stdout.readline() != "ready\n":
                    raise RuntimeError(f"{way}: a client ended before its start")
            start = f"{time.monotonic() + _WARM_S}\n"
            for each in loads:
                assert each.stdin is not None
                each.stdin.write(start)
                each.stdin.flush()
            images = [float(each.communicate(timeout=seconds + _SLACK_S)[0]) for each in loads]
        finally:
            for each in loads:
                each.kill()
                each.wait()
        hub, workers = (after - b for after, b in zip(self._received(), before, strict=True))
        per_s = sum(images) / seconds
        return {
            "Mbit/s": per_s * image.stat().st_size * 8e-6,
            "images/s": per_s,
            "hub": hub / workers,
        }

    def _received(self) -> tuple[int, int]:
        """Bytes that reached the hub, and all workers."""
        received = self._network.received
        return received("hub"), sum(map(received, self._workers))

    def _start(self, host: str, *command: object) -> None:
        self._stack.enter_context(
            running([*self._network.inside(host), *command], log=f"bandwidth-{host}")
        )

    def _wait(self, host: str, url: str) -> None:
        wait_inside(self._network.inside(host), url)


def wait_inside(inside: list[str], url: str) -> None:
    """Wait until a URL answers; asked from a host, as this process stands on none of them.

    Args:
        inside: the words before a command that runs there: `Network.inside`.
    """
    subprocess.run([*inside, sys.executable, "-c", _WAIT, url], check=True, timeout=120)


@contextmanager
def cluster(workers: int, link_mbit: float, wanted: Collection[str]) -> Iterator[Cluster]:
    """So many workers. Clients' links are four times as fast as all others."""
    links = {"hub": link_mbit}
    links |= {f"w{number}": link_mbit for number in range(workers)}
    links |= {f"c{number}": 4 * link_mbit for number in range(CLIENTS)}
    with Network(links) as network, ExitStack() as stack:
        yield Cluster(network, workers, wanted, stack)
