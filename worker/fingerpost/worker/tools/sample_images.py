"""Images to try a model on: a folder's, or made up, but with edges and areas in colours."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fingerpost.errors import ConfigurationError
from fingerpost.worker.images import FORMATS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["image_files", "sample_images"]

_SIZE = (480, 360)


def sample_images(count: int, *, seed: int = 0) -> Iterator[bytes]:
    """Encoded images, JPEG 480 x 360, the same for the same seed.

    Each is a soft gradient of random colours with ellipses and rectangles on it. Plain noise or
    gray would not do: a network answers those all alike, whatever has gone wrong inside it.
    """
    random = np.random.default_rng(seed)
    for _ in range(count):
        colours = random.integers(0, 256, (4, 5, 3), np.uint8)
        image = Image.fromarray(colours).resize(_SIZE, Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(8):
            left, right = sorted(random.integers(0, _SIZE[0], 2).tolist())
            top, bottom = sorted(random.integers(0, _SIZE[1], 2).tolist())
            shape = draw.ellipse if random.random() < 0.5 else draw.rectangle
            shape((left, top, right, bottom), fill=tuple(random.integers(0, 256, 3).tolist()))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=90)
        yield out.getvalue()


def image_files(folder: Path, most: int) -> list[bytes]:
    """The images in a folder and those below it, `most` of them, spread evenly over their names.

    Raises:
        ConfigurationError: no folder, or none in it.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
    if not files:
        raise ConfigurationError(f"no images in {folder}: name a folder that has some")
    step = max(1, -(-len(files) // most))
    return [file.read_bytes() for file in files[::step]]
