"""A Python-class model that sleeps instead of working, so that two cores serve a whole cluster."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SECONDS", "Sleeper"]

# A batch; with `--max-batch 1` a worker does 25 images a second.
SECONDS = 0.04

_MODEL_TOML = """\
framework = "python"
class = "sleeper:Sleeper"

[input]
height = 16
width = 16
"""

_CLASS = """\
import time


class Sleeper:
    height = width = 16

    def __init__(self, folder):
        self.seconds = folder / "seconds"

    def predict(self, batch):
        time.sleep(float(self.seconds.read_text()))
        means = batch.mean(axis=(1, 2))
        return means / means.sum(axis=1, keepdims=True)
"""


class Sleeper:
    """A model's folder; it tells red, green and blue images apart, in the time that it is given.

    Args:
        folder: made here; its name is the model's.
        seconds: how long a batch takes; `pace` changes it while the model is served.
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "model.toml").write_text(_MODEL_TOML)
        (folder / "sleeper.py").write_text(_CLASS)
        (folder / "labels.txt").write_text("red\ngreen\nblue\n")
        self.pace(seconds)

    def pace(self, seconds: float) -> None:
        """From now on a batch takes so long."""
        fresh = self.folder / "seconds.new"
        fresh.write_text(str(seconds))
        fresh.replace(self.folder / "seconds")
