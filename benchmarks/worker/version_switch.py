"""`python -m benchmarks.worker.version_switch`: what loading costs the other models of a worker.

One worker, two MobileNetV2 models, in TensorFlow or ONNX Runtime. One model gets 1600 x 1200 JPEGs,
one at a time; of the other, new versions are published, loaded, warmed up and switched to: one in a
window, or one after the other without a pause. Goal: with one switch in a window of a minute the
first model's p99 is at most 1.5 times its p99 without. With more `--connections` no processor is
idle, and loading takes its time from the other model.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from benchmarks.harness.environments import installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.worker.fingerpost import worker
from benchmarks.worker.mobilenet import models

__all__ = ["main"]

_PAUSE_S = 0.1
_SERVED_S = 120.0


class _Publisher:
    """Publishes versions of a model, each when the one before is served."""

    def __init__(self, model: Path, folder: Path, url: str) -> None:
        self._model = model
        self._folder = folder
        self._url = url
        self._next = 2

    def publish(self, ending: Event, most: int) -> int:
        """Publish until `ending` is set, at most `most` versions; return how many were served."""
        served = 0
        while not ending.is_set() and served < most:
            partial = self._folder / f"{self._next}.partial"
            shutil.copytree(self._model, partial)
            partial.rename(self._folder / str(self._next))
            late = time.monotonic() + _SERVED_S
            while not self._is_served():
                if time.monotonic() > late:
                    raise RuntimeError(f"version {self._next} is not served after {_SERVED_S:g} s")
                time.sleep(_PAUSE_S)
            shutil.rmtree(self._folder / str(self._next - 1))
            self._next += 1
            served += 1
        return served

    def _is_served(self) -> bool:
        url = f"{self._url}/v1/models/moving"
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - loopback
            states = json.load(answer)["model_version_status"]
        return {"version": str(self._next), "state": "AVAILABLE"}.items() <= states[0].items()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--framework", choices=["tensorflow", "onnx"], default="tensorflow")
    options = parser.parse_args()
    saved = models()[options.framework == "onnx"]
    image = photo(1600, 1200, 640)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as pool:
        repository = Path(folder)
        for name in ("steady", "moving"):
            shutil.copytree(saved, repository / name / "1")
        with worker("--models", repository, "--lease", "0.1", "--poll", "0.2") as url:
            publisher = _Publisher(saved, repository / "moving", url)

            def load() -> dict[str, float]:
                found = post(
                    f"{url}/v1/classify/steady",
                    image,
                    connections=options.connections,
                    seconds=options.seconds,
                )
                return {"p50 ms": found.p50_ms, "p99 ms": found.p99_ms, "images/s": found.per_s}

            def load_and_publish(most: int) -> dict[str, float]:
                ending = Event()
                publishing = pool.submit(publisher.publish, ending, most)
                try:
                    return load()
                finally:
                    ending.set()
                    print(f"  {publishing.result()} versions were switched to")

            load()
            figures = in_turn(
                {
                    "nothing else": load,
                    "one switch": lambda: load_and_publish(1),
                    "without a pause": lambda: load_and_publish(1_000),
                },
                rounds=options.rounds,
            )
    ratio = figures["one switch"]["p99 ms"] / figures["nothing else"]["p99 ms"]
    kept = report(
        f"version-switch-{options.framework}",
        "One model's latency while another one's versions are loaded",
        figures,
        [Goal(claim="p99 with one switch / without", ratio=ratio, bound=1.5, at_most=True)],
        versions=installed(Path(sys.executable), "tensorflow-cpu", "onnxruntime", "aiohttp"),
        settings=vars(options),
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
