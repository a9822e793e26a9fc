"""A light model `digits`, in NumPy alone, and images that it knows: workers of it start at once.

The images are plain gray, brighter for higher digits; those of each digit differ a little.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.support.python_models import write_python_model

__all__ = ["Digits", "write_digits"]

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


@dataclass(frozen=True)
class Digits:
    """A model's folder, and images in folders named for what they show, `0` first."""

    model: Path
    images: list[Path]


def write_digits(folder: Path) -> Digits:
    """Write the model to `folder/models/digits`, and 25 images of each digit."""
    place = folder / "models" / "digits"
    model = write_python_model(place, _CLASS, "light:Digits", labels=map(str, range(10)))
    images = []
    for digit in range(10):
        (folder / "images" / str(digit)).mkdir(parents=True)
        for number in range(_EACH):
            images.append(folder / "images" / str(digit) / f"{digit}-{number:02}.png")
            gray = 10 + 25 * digit + number % 7 - 3
            Image.new("L", (32 + number, 32), gray).save(images[-1])
    return Digits(model, images)
