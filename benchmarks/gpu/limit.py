"""`python -m benchmarks.gpu.limit`: one process that does a worker's work without any server."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.crew import begin_together
from fingerpost.worker.backends.devices import find_gpus, place, visible_gpus
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import find_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fingerpost.worker.backends.base import Backend


def main() -> None:
    """Load, warm up, begin together, run, print images/s."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--part", choices=["decoding", "inference", "both"], required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--memory-fraction", type=float)
    parser.add_argument("--threads", type=int, required=True, help="for decoding")
    parser.add_argument("--model-threads", type=int, default=0)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    fraction: float | None = arguments.memory_fraction
    placement = place(
        arguments.device, visible_gpus(find_gpus(), os.environ), memory_fraction=fraction
    )
    os.environ.update(placement.environment())
    backend = load_backend(
        find_model(arguments.model), placement.load_config(arguments.model_threads)
    )
    with ThreadPoolExecutor(arguments.threads) as pool:
        batches = _batches(backend, pool, arguments)
        for _ in range(3):
            backend.predict(next(batches))
        begin_together()
        began, done = time.monotonic(), 0
        while time.monotonic() - began < arguments.seconds:
            images = next(batches)
            if arguments.part != "decoding":
                backend.predict(images)
            done += len(images)
        rate = done / (time.monotonic() - began)
        pool.shutdown(cancel_futures=True)
    print(json.dumps({"images_per_s": rate, "device": backend.device}))


def _batches(
    backend: Backend, pool: ThreadPoolExecutor, arguments: argparse.Namespace
) -> Iterator[list[Any]]:
    """Batches of decoded images; two are in the making while one runs."""
    files = itertools.cycle([path.read_bytes() for path in arguments.images])
    config = ImageConfig()

    def decode() -> Future[Any]:
        return pool.submit(prepare, next(files), backend.input, config)

    if arguments.part == "inference":
        batch = [decode().result() for _ in range(arguments.batch)]
        while True:
            yield batch
    ahead = deque(decode() for _ in range(2 * arguments.batch))
    while True:
        batch = []
        for _ in range(arguments.batch):
            ahead.append(decode())
            batch.append(ahead.popleft().result())
        yield batch


if __name__ == "__main__":
    main()
