"""`python -m benchmarks.runtimes.quantized`: INT8 against FP32, MobileNetV2 on the same processors.

The models alone, by what `fingerpost model bench` measures with: each file with every runtime that
reads it, in short turns. And a worker with the fastest that agrees with the original on 99 % of
the held-out digits, against one with the ONNX model of FP32, in turn: JPEGs of 640 KB, and small
ones, which are decoded in next to no time.

Where the worker's time goes is sampled afterwards, where there is `perf`.

What is compared is processor time for an image, which other load on the machine hardly changes:
where all cores are busy, it decides the rate.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.harness.environments import installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.processes import cpu_s
from benchmarks.harness.profile import shares
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.runtimes.networks import digits, formats, run_by
from benchmarks.worker.mobilenet import fingerpost
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.bench import (
    BenchConfig,
    Measurement,
    accurate,
    measure,
)
from fingerpost.worker.tools.sample_images import image_files

if TYPE_CHECKING:
    from collections.abc import Iterator

_BATCHES = (1, 16)
_AGREEMENT = 0.99
_ONNX = "ONNX, FP32"
_BUSY = "Other work ran on this machine meanwhile: compare the processor times, not the rates."
_NO_VNNI = (
    "This processor has no VNNI: products of bytes are added by three instructions of AVX2, which "
    "VNNI does in one."
)
_GAIN = 1.5
# Of a worker's processor time, by the library that ran: what each part is, in ms an image.
_PARTS = {
    "model, ms": ("onnxruntime", "openvino", "tbb", "LiteRt", "litert", "[JIT]"),
    "decoding, ms": ("libjpeg", "_imaging", "multiarray"),
    "kernel, ms": ("[kernel",),
}
_REST = "Python and the rest, ms"


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="for the models alone")
    parser.add_argument("--rounds", type=int, default=3, help="of the workers")
    parser.add_argument("--worker-seconds", type=float, default=8, help="of each worker's turn")
    parser.add_argument("--busy", action="store_true", help="the machine has other work: say so")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    made = formats()
    cores = os.cpu_count() or 1
    config = BenchConfig(
        batch_sizes=_BATCHES,
        threads=(cores,),
        seconds=given.seconds,
        device="cpu",
        images=tuple(image_files(digits()[1], 400)),
    )
    found = measure([find_model(each) for each in made.values()], config, progress=print)
    kinds = {find_model(path).name: name for name, path in made.items()}
    figures: dict[str, dict[str, float]] = {}
    for each in found:
        row = figures.setdefault(_name(each, kinds), {"agreement": each.candidate.agreement})
        row[f"batch {each.batch}, images/s"] = each.images_s
        row[f"batch {each.batch}, p50 ms"] = each.p50_ms
        row["CPU ms/image"] = each.cpu_ms  # of the largest batch, which comes last
    fitting = [each for each in accurate(found, _AGREEMENT) if each.batch == _BATCHES[-1]]
    fastest = min(fitting, key=lambda each: each.cpu_ms)
    today = next(each for each in found if _is(each, kinds, _ONNX, "onnxruntime", _BATCHES[-1]))
    goals = [
        Goal(
            claim=f"the model alone, CPU of {_name(today, kinds)} / of the fastest "
            f"({_name(fastest, kinds)})",
            ratio=today.cpu_ms / fastest.cpu_ms,
            bound=_GAIN,
        ),
        *(
            Goal(
                claim=f"share of the answers that stay: {_name(each, kinds)}",
                ratio=each.candidate.agreement,
                bound=_AGREEMENT,
            )
            for each in found
            if each.batch == _BATCHES[-1] and "INT8" in _name(each, kinds)
        ),
    ]
    chosen = made[kinds[fastest.candidate.model.partition("@")[0]]]
    if setting := fastest.candidate.setting:
        chosen = run_by(setting.split('"')[1], chosen)
    pictures = {"640 KB": photo(1600, 1200, 640), "20 KB": photo(320, 240, 20)}
    notes = [_BUSY] if given.busy else []
    for size, picture in pictures.items():
        first, second = f"worker, {size}: ONNX, FP32", f"worker, {size}: the fastest"
        turns = {
            name: partial(_worker, model, picture, given.worker_seconds)
            for name, model in ((first, made[_ONNX]), (second, chosen))
        }
        rates = in_turn(turns, rounds=given.rounds)
        figures.update(rates)
        decoding = _decoding_ms(picture)
        whole, model = rates[first]["CPU ms/image"], today.cpu_ms
        goals.append(
            Goal(
                claim=f"a worker, {size}: CPU with ONNX, FP32 / with the fastest",
                ratio=whole / rates[second]["CPU ms/image"],
                bound=_GAIN,
            )
        )
        notes.append(
            f"Of {whole:.1f} ms of processor time that {size} take with ONNX in FP32, "
            f"decoding takes {decoding:.1f} and the model {model:.1f}, each alone. A model "
            f"that took no time would give {whole / (whole - model):.2g} times the rate, and "
            f"one that takes the {fastest.cpu_ms:.1f} ms of the fastest "
            f"{whole / (whole - model + fastest.cpu_ms):.2f} times."
        )
        for name, served in ((first, made[_ONNX]), (second, chosen)):
            parts = _profile(served, picture, given.worker_seconds)
            cost = rates[name]["CPU ms/image"]
            figures[name].update({each: share * cost for each, share in parts.items()})
    if "vnni" not in _instructions():
        notes.append(_NO_VNNI)
    kept = report(
        "quantized",
        "MobileNetV2 at 224 pixels, all cores",
        figures,
        goals,
        versions=installed(
            Path(sys.executable), "tensorflow-cpu", "onnxruntime", "openvino", "ai-edge-litert"
        ),
        settings={
            "seconds": given.seconds,
            "threads": cores,
            "rounds": given.rounds,
            "worker_seconds": given.worker_seconds,
            "images": len(config.images),
            "instructions": _instructions(),
        },
        notes=notes,
    )
    return 0 if kept else 1


@contextmanager
def _warm(model: Path, picture: Path) -> Iterator[tuple[str, int]]:
    """The URL and the process id of a worker that has had some seconds of the load."""
    with fingerpost(model) as url:
        (worker,) = [
            each
            for each in psutil.Process().children(recursive=True)
            if str(model) in each.cmdline()
        ]
        post(url, picture, connections=16, seconds=3, least=0)
        yield url, worker.pid


def _worker(model: Path, picture: Path, seconds: float) -> dict[str, float]:
    """A worker under a load of 16 connections: its rate, its latency, and what an image costs."""
    with _warm(model, picture) as (url, pid):
        began = cpu_s(pid)
        load = post(url, picture, connections=16, seconds=seconds)
        cost = (cpu_s(pid) - began) / load.requests
    return {"images/s": load.per_s, "p50 ms": load.p50_ms, "CPU ms/image": cost * 1000}


def _profile(model: Path, picture: Path, seconds: float) -> dict[str, float]:
    """The share of each part in the worker's processor time, under the same load, by samples."""
    with _warm(model, picture) as (url, pid), ThreadPoolExecutor(1) as beside:
        load = beside.submit(post, url, picture, connections=16, seconds=seconds + 1)
        found = shares(pid, seconds)
        load.result()
    parts = dict.fromkeys([*_PARTS, _REST], 0.0) if found else {}
    for library, share in found.items():
        part = next((name for name, of in _PARTS.items() if any(x in library for x in of)), _REST)
        parts[part] += share
    return parts


def _name(each: Measurement, kinds: dict[str, str]) -> str:
    about = each.candidate
    return f"{kinds[about.model.partition('@')[0]]}, {about.framework.partition(' ')[0]}"


def _is(each: Measurement, kinds: dict[str, str], kind: str, framework: str, batch: int) -> bool:
    return each.batch == batch and _name(each, kinds) == f"{kind}, {framework}"


def _decoding_ms(picture: Path) -> float:
    """Processor time to decode and shrink an image, in ms: the median of 30."""
    data, wanted, config = picture.read_bytes(), ImageInput(height=224, width=224), ImageConfig()
    took = []
    for _ in range(30):
        began = time.thread_time()
        prepare(data, wanted, config)
        took.append(time.thread_time() - began)
    return sorted(took)[len(took) // 2] * 1000


def _instructions() -> str:
    """What the processor has for products of bytes, which decides how much INT8 gains."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    flags = set(text.split())
    known = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
    return " ".join(each for each in known if each in flags) or "unknown"


if __name__ == "__main__":
    raise SystemExit(main())
