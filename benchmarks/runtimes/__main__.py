"""`python -m benchmarks.runtimes`: MobileNetV2 on TensorFlow and on ONNX Runtime, on the CPU.

By what `fingerpost model bench` measures with: the backends alone, batches of 1 and of 16, with one
thread and with all, in turn; and whether what it then recommends is the fastest that it saw.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks.harness.environments import installed
from benchmarks.harness.results import Goal, report
from benchmarks.worker.mobilenet import models
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.bench import (
    BenchConfig,
    Measurement,
    best_latency,
    best_throughput,
    measure,
)

_BATCHES = (1, 16)


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of measuring in all")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    threads = tuple(sorted({1, os.cpu_count() or 1}))
    config = BenchConfig(batch_sizes=_BATCHES, threads=threads, seconds=given.seconds, device="cpu")
    found = measure([find_model(each) for each in models()], config, progress=print)
    figures: dict[str, dict[str, float]] = {}
    for each in found:
        row = figures.setdefault(_name(each), {})
        row[f"batch {each.batch}, images/s"] = each.images_s
        row[f"batch {each.batch}, p50 ms"] = each.p50_ms
    shown, quickest = best_throughput(found), best_latency(found)
    kept = report(
        "runtimes",
        "MobileNetV2 at 224 pixels, the backend alone",
        figures,
        [
            # `fingerpost model bench` prefers a smaller batch within 3 %.
            Goal(
                claim=f"images/s of what is shown ({_name(shown)}, batch {shown.batch}) / the most",
                ratio=shown.images_s / max(each.images_s for each in found),
                bound=0.97,
            ),
            Goal(
                claim=f"latency of what is shown ({_name(quickest)}) / the least",
                ratio=quickest.p50_ms / min(each.p50_ms for each in found),
                bound=1.0,
                at_most=True,
            ),
        ],
        versions=installed(Path(sys.executable), "tensorflow-cpu", "onnxruntime"),
        settings={"seconds": given.seconds, "threads": threads},
    )
    return 0 if kept else 1


def _name(each: Measurement) -> str:
    about = each.candidate
    return f"{about.framework}, {about.threads} {'thread' if about.threads == 1 else 'threads'}"


if __name__ == "__main__":
    raise SystemExit(main())
