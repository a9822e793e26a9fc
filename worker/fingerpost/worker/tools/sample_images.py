"""Images to try a model on: those of a folder, or generated ones with edges and coloured areas."""

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

__all__ = ["find_images", "image_files", "sample_images"]

_SIZE = (480, 360)


def sample_images(count: int, *, seed: int = 0) -> Iterator[bytes]:
    """Encoded images, JPEG 480 x 360; the same seed gives the same images.

    Each is a soft gradient of random colours with ellipses and rectangles on it. Plain noise or
    gray is not enough: a network gives the same answer to all of it, even if it is broken.
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
    """At most `most` images in a folder and those below it, evenly chosen by name.

    Raises:
        ConfigurationError: there is no folder, or no image in it.
    """
    files = find_images(folder)
    step = max(1, -(-len(files) // most))
    return [file.read_bytes() for file in files[::step]]


def find_images(folder: Path) -> list[Path]:
    """The files of images in a folder and those below it, sorted; by their suffixes.

    Raises:
        ConfigurationError: there is no folder, or no image in it.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
    if not files:
        raise ConfigurationError(f"no images in {folder}: name a folder that has some")
    return files
