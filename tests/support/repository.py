"""Model folders on disk: Python classes that answer with their own version, once they are warm."""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["TOKEN", "write_version"]

# Of the worker's admin API.
TOKEN = "a-token-for-tests-only"  # noqa: S105
_CODE = """\
import time

class Model:
    encoded = True
    _warm = False

    def __init__(self, folder):
        if {broken}:
            raise ValueError("its weights are damaged")

    def predict(self, batch):
        if not self._warm:
            time.sleep({warm_up_s})
            self._warm = True
            return [[1.0, 0.0]] * len(batch)
        return [[0.0, 1.0]] * len(batch)
"""


def write_version(
    folder: Path, version: int, *, warm_up_s: float = 0.0, broken: bool = False
) -> Path:
    """`folder/version`, put there whole. Its labels are `cold` and `v` with the version."""
    partial = folder / f"{version}.partial"
    partial.mkdir(parents=True)
    (partial / "answers.py").write_text(_CODE.format(warm_up_s=warm_up_s, broken=broken))
    (partial / "model.toml").write_text('framework = "python"\nclass = "answers:Model"\n')
    (partial / "labels.txt").write_text(f"cold\nv{version}\n")
    place = folder / str(version)
    if place.exists():
        shutil.rmtree(place)
    return partial.rename(place)
