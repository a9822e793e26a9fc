"""`python -m benchmarks.worker.limit MODEL IMAGE`: what this machine does without any server.

Decoding threads feed one thread that runs batches of 16: Fingerpost's own parts, with no socket.
Run as a process of its own, so that it starts as fresh as the servers do. Prints images/s.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fingerpost.worker.backends.base import LoadOptions
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.engine import warm_up
from fingerpost.worker.images import ImageLimits, prepare
from fingerpost.worker.modelfiles import find_model

_BATCH = 16


def main() -> None:
    """Load, warm up, run, print."""
    model, image, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    backend = load_backend(find_model(model), LoadOptions())
    warm_up(backend, _BATCH)
    data, limits = image.read_bytes(), ImageLimits()
    done = 0
    # Two batches in the making while one runs, as a server has with 16 connections and more.
    ahead = threading.Semaphore(2 * _BATCH)
    with ThreadPoolExecutor(os.cpu_count() or 1) as decoders:

        def decode() -> object:
            try:
                return prepare(data, backend.input, limits)
            finally:
                ahead.release()

        def submit() -> list[object]:
            futures = []
            for _ in range(_BATCH):
                ahead.acquire()
                futures.append(decoders.submit(decode))
            return futures  # type: ignore[return-value]

        pending = [submit(), submit()]
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            batch = [future.result() for future in pending.pop(0)]  # type: ignore[attr-defined]
            pending.append(submit())
            backend.predict(batch)
            done += _BATCH
        took = time.monotonic() - began
    print(done / took)


if __name__ == "__main__":
    main()
