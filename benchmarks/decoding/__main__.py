"""`python -m benchmarks.decoding`: JPEGs to 224 x 224, by Fingerpost, plain Pillow and others.

Others take part where they are installed: `pip install simplejpeg PyTurboJPEG pyvips[binary]
opencv-python-headless tensorflow-cpu`. Decoders that can decode smaller do so, at Fingerpost's
scale; `docs/decisions/0010-decoding.md` has the conclusions. Times are processor time, page faults
included, which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.decoding.decoders import DECODERS
from benchmarks.harness.environments import ROOT
from benchmarks.harness.pictures import photo
from benchmarks.harness.results import Goal, in_turn, report

if TYPE_CHECKING:
    from pathlib import Path

_PICTURES = {"1600 x 1200": (1600, 1200, 640), "4000 x 3000": (4000, 3000, 4000)}
_THREADS = "1600 x 1200, 2 threads"
_OTHERS = ("simplejpeg", "pyturbojpeg", "opencv", "pyvips", "tensorflow")
_PACKAGES = (
    "pillow",
    "simplejpeg",
    "PyTurboJPEG",
    "pyvips",
    "opencv-python-headless",
    "tensorflow-cpu",
)


def main() -> int:
    """Run, print, write the results; return 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--beside", nargs="*", default=DECODERS, help="plain Pillow; all others")
    chosen = parser.parse_args()
    pictures = {name: photo(*size) for name, size in _PICTURES.items()}
    first = pictures["1600 x 1200"]
    names = dict.fromkeys(("fingerpost", "plain pillow", *chosen.beside))
    contestants = {name: made for name in names if (made := _pixels(name, first)) is not None}
    figures = in_turn(
        {name: partial(_times, name, pictures, chosen.seconds) for name in contestants},
        rounds=chosen.rounds,
    )
    plain = contestants["plain pillow"].astype(int)
    for name, row in figures.items():
        for key in (*_PICTURES, _THREADS):
            row[f"{key}, ratio"] = row[key] / figures["plain pillow"][key]
        row["mean difference"] = float(np.abs(contestants[name] - plain).mean())
    ours = figures["fingerpost"]["1600 x 1200"]
    others = [row["1600 x 1200"] for name, row in figures.items() if name in _OTHERS]
    goals = [("against plain Pillow", figures["plain pillow"]["1600 x 1200"], 0.4)]
    if others:
        goals.append(("against the fastest other library", min(others), 1.3))
    kept = report(
        "decoding",
        "JPEG to 224 x 224 pixels: processor ms, ratio to plain Pillow, difference of 255",
        figures,
        [
            Goal(claim=f"1600 x 1200, {claim}", ratio=ours / theirs, bound=bound, at_most=True)
            for claim, theirs, bound in goals
        ],
        versions=_versions(),
        settings={"rounds": chosen.rounds, "seconds": chosen.seconds},
    )
    return 0 if kept else 1


def _pixels(name: str, picture: Path) -> np.ndarray | None:
    """The pixels of one decoder; None where its library, or one that it needs, is not installed."""
    try:
        return DECODERS[name]()(picture.read_bytes())
    except (ImportError, OSError, RuntimeError) as error:
        print(f"without {name}: {error}", flush=True)
        return None


def _times(name: str, pictures: dict[str, Path], seconds: float) -> dict[str, float]:
    times = {size: _run(name, path, 1, seconds)[0] for size, path in pictures.items()}
    spent, took = _run(name, pictures["1600 x 1200"], 2, seconds)
    return times | {_THREADS: spent, f"{_THREADS}, wall": took}


def _run(name: str, picture: Path, threads: int, seconds: float) -> tuple[float, float]:
    """Milliseconds an image: of processor time, and of wall-clock time."""
    module = "benchmarks.decoding.decoders"
    output = subprocess.run(
        [sys.executable, "-m", module, name, str(picture), str(threads), str(seconds)],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        timeout=120,
    ).stdout
    spent, took = map(float, output.split())
    return spent, took


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    sys.exit(main())
