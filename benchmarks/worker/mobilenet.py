"""`python -m benchmarks.worker.mobilenet`: a real network, real JPEGs, and other model servers.

MobileNetV2 at 224 pixels, 1600 x 1200 JPEGs of 640 KB, 16 connections; against mosec, LitServe,
BentoML, Ray Serve and MLServer with the same SavedModel, and the in-process limit of each backend.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.environments import CACHE, installed
from benchmarks.harness.load import post
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report
from benchmarks.worker.fingerpost import worker
from benchmarks.worker.peers import PEERS, TENSORFLOW, versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["fingerpost", "models"]

_BOUNDARY = "benchmark"
_TENSORFLOW, _ONNX = "Fingerpost, TensorFlow", "Fingerpost, ONNX"

_BUILD = """
import sys
import keras

keras.utils.set_random_seed(1)
model = keras.applications.MobileNetV2(weights=None, input_shape=(224, 224, 3))
inputs = keras.Input((224, 224, 3))
outputs = model(keras.layers.Rescaling(1 / 127.5, offset=-1)(inputs))
keras.Model(inputs, outputs).export(sys.argv[1], format="tf_saved_model", verbose=False)
"""


def models() -> tuple[Path, Path]:
    """The network as a SavedModel, and its ONNX version made by `fingerpost model export`."""
    saved = CACHE / "models" / "mobilenet" / "1"
    if not (saved / "saved_model.pb").exists():
        saved.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-c", _BUILD, saved], check=True, timeout=300)
    onnx = CACHE / "models" / "mobilenet-onnx" / "1"
    if not onnx.exists():
        command = [sys.executable, "-m", "fingerpost.deploy.cli", "model", "export", saved,
                   "--out", onnx]  # fmt: skip
        subprocess.run(command, check=True, timeout=600)
    return saved, onnx


def _limit(model: Path, image: Path, seconds: float) -> dict[str, float]:
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.worker.limit", model, image, str(seconds)],
        check=True, capture_output=True, text=True, timeout=seconds + 120,
    ).stdout  # fmt: skip
    return {"images/s": float(output.split()[-1])}


@contextmanager
def fingerpost(model: Path) -> Iterator[str]:
    """A worker with this model; the URL that classifies."""
    with worker("--model", model, "--lease", 0) as url:
        yield f"{url}/v1/classify/{model.parent.name}"


def _measure(
    server: Callable[[], AbstractContextManager[str]], body: Path, seconds: float, kind: str
) -> dict[str, float]:
    with server() as url:
        post(url, body, connections=16, seconds=3, content_type=kind, least=0)  # warm
        load = post(url, body, connections=16, seconds=seconds, content_type=kind)
    return {"images/s": load.per_s, "p50 ms": load.p50_ms, "p99 ms": load.p99_ms}


def main() -> int:
    """Measure, report, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--only", nargs="*", help="contestants, by default all")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    saved, onnx = models()
    image = photo(1600, 1200, 640)
    seconds = given.seconds
    with tempfile.TemporaryDirectory() as folder:
        form = Path(folder) / "form"
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="a.jpg"\r\n'
            "Content-Type: image/jpeg\r\n\r\n"
        )
        form.write_bytes(head.encode() + image.read_bytes() + f"\r\n--{_BOUNDARY}--\r\n".encode())
        raw = (image, seconds, "image/jpeg")
        multipart = (form, seconds, f"multipart/form-data; boundary={_BOUNDARY}")
        contestants: dict[str, Callable[[], dict[str, float]]] = {
            "limit, TensorFlow": partial(_limit, saved, image, seconds),
            _TENSORFLOW: partial(_measure, partial(fingerpost, saved), *raw),
            "limit, ONNX": partial(_limit, onnx, image, seconds),
            _ONNX: partial(_measure, partial(fingerpost, onnx), *raw),
        } | {
            name: partial(
                _measure, partial(peer.serve, saved), *(multipart if peer.multipart else raw)
            )
            for name, peer in PEERS.items()
        }
        chosen = {
            name: run for name, run in contestants.items() if not given.only or name in given.only
        }
        figures = in_turn(chosen, rounds=given.rounds)
    goals = [
        Goal(
            claim=f"{first} / {second}",
            ratio=figures[first]["images/s"] / figures[second]["images/s"],
            bound=bound,
        )
        for first, second, bound in (
            (_TENSORFLOW, "limit, TensorFlow", 0.9),
            (_TENSORFLOW, "mosec", 2.0),
            (_TENSORFLOW, "LitServe", 2.8),
            (_TENSORFLOW, "BentoML", 1.0),
            (_TENSORFLOW, "Ray Serve", 1.0),
            (_TENSORFLOW, "MLServer", 1.0),
            (_ONNX, "limit, ONNX", 0.9),
            (_ONNX, "mosec", 3.0),
        )
        if first in figures and second in figures
    ]
    notes = ["The peers run the same SavedModel in TensorFlow, and decode with Pillow."]
    if "mosec" in figures:
        limits = ", ".join(
            f"{figures[name]['images/s'] / figures['mosec']['images/s']:.3g} times ({name})"
            for name in ("limit, TensorFlow", "limit, ONNX")
            if name in figures
        )
        notes.append(f"What both cores can decode and run with no server is {limits} mosec's rate.")
    found = installed(Path(sys.executable), TENSORFLOW, "onnxruntime")
    for name in PEERS:
        if name in figures:
            found |= versions(name)
    kept = report(
        "worker-mobilenet",
        "MobileNetV2, 1600 x 1200 JPEGs of 640 KB, 16 connections",
        figures,
        goals,
        versions=found,
        settings={"rounds": given.rounds, "seconds": seconds, "connections": 16},
        notes=notes,
    )
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
