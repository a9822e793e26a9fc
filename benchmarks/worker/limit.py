"""`python -m benchmarks.worker.limit MODEL IMAGE SECONDS`: the machine's images/s with no server.

Decoding threads feed the threads of the model, one for each concurrent batch, 16 images at a time:
Fingerpost's own parts, without a socket. Runs in a new process, as the servers do.
Prints images/s.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import find_model

_AT_ONCE = 16


def main() -> None:
    """Load, warm up, run, print."""
    model, image, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    backend = load_backend(find_model(model), LoadConfig())
    wanted, data, config = backend.input, image.read_bytes(), ImageConfig()
    size = _AT_ONCE // wanted.concurrent_batches
    warm_up(backend, size)
    with ThreadPoolExecutor(os.cpu_count() or 1) as decoders, ThreadPoolExecutor() as models:

        def submit() -> list[Future[Any]]:
            return [decoders.submit(prepare, data, wanted, config) for _ in range(size)]

        def work(until: float) -> int:
            # Two batches are decoded while one runs, as in a server with more connections.
            pending, done = [submit(), submit()], 0
            while time.monotonic() < until:
                batch = [future.result() for future in pending.pop(0)]
                pending.append(submit())
                backend.predict(batch)
                done += size
            return done

        began = time.monotonic()
        done = sum(models.map(work, [began + seconds] * wanted.concurrent_batches))
        took = time.monotonic() - began
    print(done / took)


if __name__ == "__main__":
    main()
