"""Light models `digits`, in NumPy alone: workers of them start at once.

One has images of its own, which are plain gray, brighter for higher digits; those of each digit
differ a little. The other knows real handwritten digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.python_models import write_python_model

__all__ = ["Digits", "write_digits", "write_reader"]

_EACH = 25
_CLASS = """\
import numpy as np


class Digits:
    height = width = 28

    def __init__(self, folder):
        pass

    def predict(self, batch):
        wanted = 10 + 25 * np.arange(10)
        scores = np.exp(-np.abs(batch.mean(axis=(1, 2, 3))[:, None] - wanted) / 4)
        return scores / scores.sum(axis=1, keepdims=True)
"""
_READER = """\
from pathlib import Path

import numpy as np


class Reader:
    height = width = 8

    def __init__(self, folder):
        self.known = np.load(Path(folder) / "known.npy").astype(np.float32)
        self.digits = np.load(Path(folder) / "digits.npy")
        self.lengths = (self.known**2).sum(axis=1)

    def predict(self, batch):
        pixels = batch.mean(axis=3, dtype=np.float32).reshape(len(batch), 64)
        nearest = (self.lengths - 2 * pixels @ self.known.T).argmin(axis=1)
        return np.eye(10, dtype=np.float32)[self.digits[nearest]]
"""


@dataclass(frozen=True)
class Digits:
    """A model's folder, and images in folders named for what they show, `0` first."""

    model: Path
    images: list[Path]


def write_model(folder: Path) -> Path:
    """Write the model to `folder/models/digits`, without images."""
    place = folder / "models" / "digits"
    return write_python_model(place, _CLASS, "light:Digits", labels=map(str, range(10)))


def write_digits(folder: Path) -> Digits:
    """Write the model to `folder/models/digits`, and 25 images of each digit."""
    model = write_model(folder)
    images = []
    for digit in range(10):
        (folder / "images" / str(digit)).mkdir(parents=True)
        for number in range(_EACH):
            images.append(folder / "images" / str(digit) / f"{digit}-{number:02}.png")
            gray = 10 + 25 * digit + number % 7 - 3
            Image.new("L", (32 + number, 32), gray).save(images[-1])
    return Digits(model, images)


def write_reader(folder: Path, train: Path) -> Path:
    """Write version 1 of a model `digits` that reads real ones, and return the model's folder.

    An image is what the nearest of those in `train` is, a folder of each digit's images, at 8 x 8
    pixels: 99 % of the demo's held-out images are right.
    """
    paths = sorted(train.glob("*/*.png"))
    version = write_python_model(
        folder / "digits" / "1", _READER, "reader:Reader", labels=map(str, range(10))
    )
    known = [np.asarray(Image.open(path).convert("L").resize((8, 8))).ravel() for path in paths]
    np.save(version / "known.npy", np.stack(known))
    np.save(version / "digits.npy", np.array([int(path.parent.name) for path in paths]))
    return version.parent
