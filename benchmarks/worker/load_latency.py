"""`python -m benchmarks.worker.load_latency`: `GET /load` while the engine is saturated.

MobileNetV2 at 224 pixels with TensorFlow, 1600 x 1200 JPEGs from 16 connections; one more
connection asks `GET /load` some 50 times a second. Goal: 1 ms in the median, 10 ms at p99.
"""

from __future__ import annotations

import argparse
import http.client
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import quantiles
from urllib.parse import urlsplit

from benchmarks.harness.environments import installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, report
from benchmarks.worker.fingerpost import worker
from benchmarks.worker.mobilenet import models

__all__ = ["main"]


def load_latencies_ms(url: str, until: float) -> list[float]:
    """Ask `GET /load` over one connection, with pauses of 10 to 30 ms; return the latencies.

    Args:
        until: the end, by `time.monotonic`.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    latencies = []
    while time.monotonic() < until:
        began = time.perf_counter()
        connection.request("GET", "/load")
        answer = connection.getresponse()
        answer.read()
        latencies.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            raise RuntimeError(f"GET /load answered {answer.status}")
        time.sleep(random.uniform(0.01, 0.03))
    connection.close()
    return latencies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    saved, _ = models()
    image = photo(1600, 1200, 640)
    with worker("--model", saved, "--lease", 0) as url, ThreadPoolExecutor(1) as pool:
        post(url, image, connections=16, seconds=3)
        loading = pool.submit(post, url, image, connections=16, seconds=options.seconds)
        time.sleep(1)  # until all connections are busy
        latencies = load_latencies_ms(url, time.monotonic() + options.seconds - 2)
        load = loading.result()
    cuts = quantiles(latencies, n=100)
    figures = {"GET /load": {"p50 ms": cuts[49], "p99 ms": cuts[98], "images/s": load.per_s}}
    goals = [
        Goal(claim="GET /load, median, ms", ratio=cuts[49], bound=1.0, at_most=True),
        Goal(claim="GET /load, p99, ms", ratio=cuts[98], bound=10.0, at_most=True),
    ]
    kept = report(
        "load-latency",
        "GET /load while MobileNetV2 is saturated, 16 connections",
        figures,
        goals,
        versions=installed(Path(sys.executable), "aiohttp", "pillow"),
        settings={"seconds": options.seconds, "requests": len(latencies)},
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
