"""`python -m benchmarks.front_ends`: a worker with two front ends against one that is one process.

The model sleeps instead of using a GPU, and takes more images at once than either can give it: what
is measured is how fast requests get to a model that is fast enough. The two workers take turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE, ROOT
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.processes import cpu_s
from benchmarks.harness.results import Goal, report
from benchmarks.harness.servers import free_port, running, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CONNECTIONS = 256
_MODEL = """
import time

import numpy as np


class Sleeping:
    encoded = True

    def __init__(self, folder):
        self.scores = np.zeros((512, 1), np.float32)

    def predict(self, batch):
        time.sleep(0.005)
        return self.scores[: len(batch)]
"""


def _model() -> Path:
    folder = CACHE / "models" / "sleeping" / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sleeping.py").write_text(_MODEL)
    (folder / "model.toml").write_text('framework = "python"\nclass = "sleeping:Sleeping"\n')
    return folder


@contextmanager
def _worker(front_ends: int) -> Iterator[tuple[int, str]]:
    """A worker; yields its process and the URL that classifies, once it is ready."""
    registry, port = free_port(), free_port()
    program = [sys.executable, "-m", "fingerpost.deploy.cli"]
    options = ["--front-ends", front_ends, "--max-batch", _CONNECTIONS // 2, "--lease", 0]
    command = [*program, "worker", "--port", port, "--model", _model(), "--check", "ttl",
               "--registry", f"http://127.0.0.1:{registry}", *options]  # fmt: skip
    with (
        running([*program, "registry", "--port", registry], cwd=ROOT) as process,
        running(command, cwd=ROOT, log=f"front-ends-{front_ends}") as worker,
    ):
        wait_for(f"http://127.0.0.1:{registry}/v1/status/leader", process)
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/health/ready", worker)
        yield worker.pid, f"{url}/v1/classify/sleeping"


def _slice(process: int, url: str, body: Path, seconds: float) -> dict[str, float]:
    before = cpu_s(process)
    load = post(url, body, connections=_CONNECTIONS, seconds=seconds)
    spent_s = cpu_s(process) - before
    return {
        "images/s": load.per_s,
        "p50 ms": load.p50_ms,
        "p99 ms": load.p99_ms,
        "CPU us/image, all processes": spent_s / load.requests * 1e6,
    }


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--pairs", type=int, default=8)
    given = parser.parse_args()
    body = photo(320, 240, 20)
    with ExitStack() as stack:
        workers = {count: stack.enter_context(_worker(count)) for count in (1, 2)}
        taken: dict[int, list[dict[str, float]]] = {count: [] for count in workers}
        for worker in workers.values():
            _slice(*worker, body, 1)  # warm
        for pair in range(given.pairs):
            for count in list(workers)[:: 1 if pair % 2 else -1]:
                taken[count].append(_slice(*workers[count], body, given.seconds))
    figures = {
        f"--front-ends {count}": {
            key: statistics.median(each[key] for each in slices) for key in slices[0]
        }
        for count, slices in taken.items()
    }
    pairs = list(zip(taken[1], taken[2], strict=True))
    rate = statistics.median(two["images/s"] / one["images/s"] for one, two in pairs)
    key = "CPU us/image, all processes"
    cost = statistics.median(one[key] / two[key] for one, two in pairs)
    kept = report(
        "front-ends",
        f"Images of 20 KB, {_CONNECTIONS} connections, a model that sleeps 5 ms",
        figures,
        [
            Goal(claim="images/s of two front ends / one process", ratio=rate, bound=1.1),
            Goal(claim="processor time of one process / two front ends", ratio=cost, bound=0.7),
        ],
        versions={},
        settings={"seconds": given.seconds, "pairs": given.pairs, "connections": _CONNECTIONS},
    )
    return not kept


if __name__ == "__main__":
    sys.exit(main())
