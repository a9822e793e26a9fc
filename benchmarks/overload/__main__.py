"""`python -m benchmarks.overload`: what is answered in time when slow links get too many images.

Network namespaces on a bridge: 4 clients with links of `--link` Mbit/s, shaped on both ends, and
workers with fast ones. JPEGs of 100 KB come at random times, at 1, 2, 4 and 16 times what the
cluster can do, and have `--timeout` seconds each. In the first case the links are the
limit, in the others the workers, which sleep for each image and do half of what the links carry.
Needs root.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from benchmarks.bandwidth.cluster import wait_inside
from benchmarks.harness.environments import CACHE
from benchmarks.harness.network import Network
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import running
from fingerpost.registry.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLIENTS: Final = 4
_TIMES: Final = (1, 2, 4, 16)
_PORT: Final = 9000
_FAST_MBIT: Final = 1000.0
_FINGERPOST: Final = [sys.executable, "-m", "fingerpost.deploy.cli"]
_START_S: Final = 3.0  # of the processes that send
_SLACK_S: Final = 60.0
_MODEL: Final = """
import time

import numpy as np


class Sleeper:
    encoded = True

    def __init__(self, folder):
        self.scores = np.zeros((1, 1), np.float32)

    def predict(self, batch):
        time.sleep({seconds})
        return self.scores
"""


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--link", type=float, default=5, help="Mbit/s")
    parser.add_argument("--timeout", type=float, default=4, help="seconds")
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    image = photo(640, 480, 100)
    carried = _CLIENTS * given.link * 1e6 / 8 / image.stat().st_size
    cases = {
        "the links are the limit": (1, 4 * carried),
        "one worker is": (1, carried / 2),
        "two workers are": (2, carried / 2),
    }
    figures: dict[str, dict[str, float]] = {}
    for name, (workers, worked) in cases.items():
        rate = min(carried, worked)
        with _cluster(workers, given.link, workers / worked) as hosts:
            found = in_turn(
                {
                    f"{name}, {times} x": partial(
                        hosts.load, image, times * rate, given.timeout, given.seconds
                    )
                    for times in _TIMES
                },
                rounds=given.rounds,
            )
        figures |= {row: {**each, "of capacity": each["images/s"] / rate}
                    for row, each in found.items()}  # fmt: skip
    goals = []
    for name in cases:
        best = max(figures[f"{name}, {times} x"]["images/s"] for times in _TIMES)
        goals += [
            Goal(
                claim=f"{name}: answered in time at {times} x / at its best",
                ratio=figures[f"{name}, {times} x"]["images/s"] / best,
                bound=0.9,
            )
            for times in _TIMES[1:]
        ]
    kept = report(
        "overload",
        f"Images a second that are answered within {given.timeout:g} s",
        figures,
        goals,
        versions={"fingerpost": __version__},
        settings={
            "link_mbit": given.link, "clients": _CLIENTS, "timeout_s": given.timeout,
            "seconds": given.seconds, "rounds": given.rounds, "image_bytes": image.stat().st_size,
        },
        notes=[f"The links carry {carried:.1f} images/s without the headers of TCP and Ethernet."],
    )  # fmt: skip
    return 0 if kept else 1


class _Cluster:
    """Workers and clients on hosts of their own."""

    def __init__(self, network: Network, workers: list[str]) -> None:
        self._network = network
        self._workers = ",".join(workers)

    def load(self, image: Path, rate: float, timeout_s: float, seconds: float) -> dict[str, float]:
        """All clients' images together: those answered in time, a second, and their times."""
        start = time.monotonic() + _START_S + 2 * timeout_s
        arguments = [self._workers, image, rate / _CLIENTS, timeout_s, start, seconds]
        loads = [
            subprocess.Popen(
                [
                    *self._network.inside(f"c{number}"),
                    *(sys.executable, "-m", "benchmarks.overload.load"),
                    *map(str, arguments),
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(_CLIENTS)
        ]
        try:
            limit_s = start - time.monotonic() + seconds + _SLACK_S
            took = [json.loads(each.communicate(timeout=limit_s)[0]) for each in loads]
        finally:
            for each in loads:
                each.kill()
                each.wait()
        answered = sorted(each for client in took for each in client if each is not None)
        counts = [sum(each is not None for each in client) for client in took]
        return {
            "images/s": len(answered) / seconds,
            "p50 s": answered[len(answered) // 2],
            "p99 s": answered[len(answered) * 99 // 100],
            "least client / mean": min(counts) * _CLIENTS / sum(counts),
        }


@contextmanager
def _cluster(workers: int, link_mbit: float, sleep_s: float) -> Iterator[_Cluster]:
    names = [f"w{number}" for number in range(workers)]
    links = dict.fromkeys(["hub", *names], _FAST_MBIT)
    links |= {f"c{number}": link_mbit for number in range(_CLIENTS)}
    folder = CACHE / "models" / f"sleeps-{1000 * sleep_s:.0f}" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sleeper.py").write_text(_MODEL.format(seconds=sleep_s))
    (folder / "model.toml").write_text('framework = "python"\nclass = "sleeper:Sleeper"\n')
    with Network(links) as network, ExitStack() as stack:

        def start(host: str, *command: object, url: str) -> None:
            inside = network.inside(host)
            stack.enter_context(running([*inside, *command], log=f"overload-{host}"))
            wait_inside(inside, url)

        hub = network.address["hub"]
        registry = f"http://{hub}:12481"
        start("hub", *_FINGERPOST, "registry", "--host", hub, "--allow-remote",
              url=f"{registry}/v1/status/leader")  # fmt: skip
        places = [f"{network.address[name]}:{_PORT}" for name in names]
        for name, place in zip(names, places, strict=True):
            start(name, *_FINGERPOST, "worker", "--model", folder, "--name", "sleeper",
                  "--registry", registry, "--host", network.address[name], "--port", _PORT,
                  "--lease", 0, "--max-batch", 1, url=f"http://{place}/health/ready")  # fmt: skip
        yield _Cluster(network, places)


if __name__ == "__main__":
    raise SystemExit(main())
