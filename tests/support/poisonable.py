"""A Python-class model whose process ends at a white image, as by a fault in a decoder."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.support.pictures import save
from tests.support.python_models import write_python_model

__all__ = ["POISON", "poisonable"]

POISON = save(Image.new("RGB", (40, 30), "white"))

_CLASS = """\
import os
import time


class Poisonable:
    height = width = 16

    def __init__(self, folder):
        pass

    def predict(self, batch):
        means = batch.mean(axis=(1, 2))
        if (means.min(axis=1) > 250).any():
            os._exit(7)
        time.sleep(0.01)
        return means / means.sum(axis=1, keepdims=True)
"""


def poisonable(folder: Path) -> Path:
    """Make the model's folder, whose name is the model's; it tells red, green and blue apart."""
    return write_python_model(
        folder, _CLASS, "poisonable:Poisonable", labels=("red", "green", "blue")
    )
