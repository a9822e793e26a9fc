"""`python -m benchmarks.gpu`: ResNet-50 in PyTorch on one device, with 1, 2, 4 and 8 processes.

For each number of processes, in turn: what they reach with nothing but decoding threads and the
model (the limit), and what `fingerpost worker --processes-per-device` answers over HTTP, with real
JPEGs from several client processes on the same machine. Then where the time of a request goes, from
the workers' own histograms.

On a machine without a GPU `--device cpu --small` tries it out in a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.gpu.crew import together
from benchmarks.harness.environments import CACHE, installed
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.harness.servers import free_port, running, wait_for
from fingerpost.worker.backends.devices import find_gpus, place_processes, visible_gpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME = "resnet"
_BATCH = 32


def main() -> int:
    """Measure, print, write `benchmarks/results/gpu-resnet50.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="as for fingerpost worker")
    parser.add_argument("--processes", default=None, help="by default 1,2,4,8; small: 1,2")
    parser.add_argument("--size", default="500x375", help="of the JPEGs; ImageNet's by default")
    parser.add_argument("--kilobytes", type=int, default=60)
    parser.add_argument("--connections", type=int, default=None, help="by default 256; small: 16")
    parser.add_argument("--clients", type=int, default=None, help="processes; by default cores / 4")
    parser.add_argument("--seconds", type=float, default=None, help="by default 10; small: 2")
    parser.add_argument("--rounds", type=int, default=None, help="by default 3; small: 1")
    parser.add_argument(
        "--small", action="store_true", help="a small network and short runs, without a verdict"
    )
    parser.add_argument("--minimum", type=float, default=0.9, help="of the limit, to be reached")
    arguments = parser.parse_args()
    small = arguments.small
    arguments.connections = arguments.connections or (16 if small else 256)
    arguments.seconds = arguments.seconds or (2.0 if small else 10.0)
    arguments.clients = arguments.clients or max(1, (os.cpu_count() or 1) // 4)
    width, height = map(int, arguments.size.split("x"))
    arguments.images = [photo(width, height, arguments.kilobytes, seed=n) for n in range(1, 9)]
    arguments.model = _model(small=small)
    processes = arguments.processes or ("1,2" if small else "1,2,4,8")
    counts = [int(text) for text in processes.split(",")]
    contestants: dict[str, Callable[[], dict[str, float]]] = {
        "decoding": lambda: _limit(arguments, 1, "decoding"),
        "inference": lambda: _limit(arguments, 1, "inference"),
    }
    for count in counts:
        contestants[f"limit, {count}"] = lambda count=count: _limit(arguments, count, "both")
        contestants[f"served, {count}"] = lambda count=count: _served(arguments, count)
    figures = in_turn(contestants, rounds=arguments.rounds or (1 if small else 3))
    limit = max(figures[f"limit, {count}"]["images/s"] for count in counts)
    served = {count: figures[f"served, {count}"]["images/s"] for count in counts}
    best = max(served, key=lambda count: served[count])
    goal = Goal(
        claim=f"served by {best} processes / in-process limit",
        ratio=served[best] / limit,
        bound=arguments.minimum,
    )
    gpus = visible_gpus(find_gpus(), os.environ)
    kept = report(
        "gpu-resnet50-small" if small else "gpu-resnet50",
        f"ResNet-50, JPEGs {arguments.size} of {arguments.kilobytes} KB, batches of {_BATCH}",
        figures,
        [] if small else [goal],
        versions=installed(Path(sys.executable), "torch", "aiohttp", "pillow", "numpy"),
        settings={
            "device": gpus[0].name if gpus and arguments.device != "cpu" else "cpu",
            "connections": arguments.connections,
            "clients": arguments.clients,
            "seconds": arguments.seconds,
            "small": small,
        },
    )
    return 0 if kept else 1


def _model(*, small: bool) -> Path:
    folder = CACHE / "models" / ("resnet-small" if small else "resnet50") / _NAME
    if not (folder / "labels.txt").exists():  # the last that is written
        from benchmarks.gpu.resnet50 import export

        shutil.rmtree(folder, ignore_errors=True)
        export(folder, small=small, batch=_BATCH)
    return folder


def _limit(arguments: argparse.Namespace, count: int, part: str) -> dict[str, float]:
    """So many processes on the device, decoding threads shared out among them."""
    cores = os.cpu_count() or 1
    gpus = visible_gpus(find_gpus(), os.environ)
    crew = []
    for placement in place_processes(arguments.device, None, gpus, processes=count):
        words: list[object] = [
            arguments.model, *arguments.images, "--part", part, "--device", placement.option,
            "--threads", max(1, cores // count), "--batch", _BATCH,
            "--seconds", arguments.seconds,
        ]  # fmt: skip
        if placement.memory_fraction is not None:
            words += ["--memory-fraction", placement.memory_fraction]
        if placement.gpu is None and count > 1:
            words += ["--model-threads", max(1, cores // count)]
        crew.append(words)
    results = together("benchmarks.gpu.limit", crew)
    return {"images/s": sum(result["images_per_s"] for result in results)}


def _served(arguments: argparse.Namespace, count: int) -> dict[str, float]:
    """So many workers on the device, and where the time of their requests goes, in ms.

    `rest` is the workers' own (reading bodies, writing answers), `client` what is outside of them.
    """
    with _workers(arguments, count) as urls:
        share = max(1, arguments.connections // arguments.clients)
        words = [f"--url={url}/v1/classify/{_NAME}" for url in urls]
        words += [f"--connections={share}", f"--seconds={arguments.seconds}"]
        # Each client begins with another worker, so that all get as many connections.
        crew = [
            [*arguments.images, *words[n % count : count], *words[: n % count], *words[count:]]
            for n in range(arguments.clients)
        ]
        before = _totals(urls)
        results = together("benchmarks.gpu.load", crew)
        totals = _totals(urls)
        totals.subtract(before)
    if failed := sum(result["failed"] for result in results):
        raise RuntimeError(f"{failed} requests failed")
    latencies = [each for result in results for each in result["ms"]]
    cuts = statistics.quantiles(latencies, n=100)

    def mean_ms(name: str) -> float:
        counted = totals[f"fingerpost_worker_{name}_seconds_count"]
        return totals[f"fingerpost_worker_{name}_seconds_sum"] / max(counted, 1) * 1000

    parts = {name: mean_ms(name) for name in ("decode", "queue", "inference")}
    batches = totals["fingerpost_worker_batch_size_images_count"]
    return {
        "images/s": sum(result["images_per_s"] for result in results),
        "p50 ms": cuts[49],
        "p99 ms": cuts[98],
        **parts,
        "rest": mean_ms("total") - sum(parts.values()),
        "client": statistics.mean(latencies) - mean_ms("total"),
        "batch": totals["fingerpost_worker_batch_size_images_sum"] / max(batches, 1),
    }


@contextmanager
def _workers(arguments: argparse.Namespace, count: int) -> Iterator[list[str]]:
    """So many workers on the device; their URLs."""
    program = [sys.executable, "-m", "fingerpost.deploy.cli"]
    registry = f"http://127.0.0.1:{(port := free_port())}"
    with running([*program, "registry", "--port", port], log="gpu-registry") as process:
        wait_for(f"{registry}/v1/status/leader", process)
        command = [
            *program, "worker", "--model", arguments.model, "--registry", registry, "--lease", 0,
            "--max-queue", 4096, "--device", arguments.device, "--processes-per-device", count,
        ]  # fmt: skip
        with running(command, log="gpu-workers") as process:
            found: list[dict[str, Any]] = []
            while len(found) < count:
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}")
                time.sleep(0.1)
                found = json.loads(_get(f"{registry}/v1/health/service/{_NAME}?passing"))
            yield [f"http://{e['Service']['Address']}:{e['Service']['Port']}" for e in found]


def _totals(urls: list[str]) -> Counter[str]:
    """Sums and counts of the workers' metrics, all labels and workers together."""
    totals: Counter[str] = Counter()
    for url in urls:
        for family in text_string_to_metric_families(_get(f"{url}/metrics")):
            for sample in family.samples:
                if sample.name.endswith(("_sum", "_count")):
                    totals[sample.name] += sample.value  # type: ignore[assignment]
    return totals


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
        text: str = answer.read().decode()
        return text


if __name__ == "__main__":
    raise SystemExit(main())
