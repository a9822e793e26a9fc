"""Triton's client of gRPC, unmodified, without pause: `triton_load.py TARGET MODEL IMAGE COUNT`.

So many threads send an image to the target again and again. For each line that it reads it prints
what was answered since the last one, as JSON: the `requests`, what the `failed` ones said, and how
long the slowest took.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


class Record:
    """What was answered, from all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.requests, self.slowest_s, self.failed = 0, 0.0, list[str]()

    def add(self, took_s: float, error: str) -> None:
        with self._lock:
            self.requests += 1
            self.slowest_s = max(self.slowest_s, took_s)
            if error:
                self.failed.append(error)

    def take(self) -> str:
        """All of it, as JSON; what comes then counts from the start."""
        with self._lock:
            found = {
                "requests": self.requests, "failed": self.failed, "slowest_s": self.slowest_s,
            }  # fmt: skip
            self._begin()
        return json.dumps(found)


def send(client: triton.InferenceServerClient, model: str, image: bytes, record: Record) -> None:
    """One image after the other. The first class of a green one is green."""
    data = triton.InferInput("image", [1], "BYTES")
    data.set_data_from_numpy(np.array([image], object))
    while True:
        began, error = time.monotonic(), ""
        try:
            result = client.infer(model, [data], client_timeout=10.0)
            scores = result.as_numpy("scores") if result is not None else None
            if scores is None or scores.argmax() != 1:
                error = f"a wrong answer: {scores}"
        except InferenceServerException as problem:
            error = str(problem)
        record.add(time.monotonic() - began, error)


def main(target: str, model: str, file: str, count: int) -> None:
    """Until its input ends."""
    record, image = Record(), Path(file).read_bytes()
    client = triton.InferenceServerClient(target)
    for _ in range(count):
        threading.Thread(target=send, args=(client, model, image, record), daemon=True).start()
    for _ in sys.stdin:
        sys.stdout.write(record.take() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
