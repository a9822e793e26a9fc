"""JPEGs as cameras make them, drawn: smooth surfaces, edges and grain, of a wanted size."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from benchmarks.harness.environments import CACHE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["photo"]


@cache
def photo(width: int, height: int, kilobytes: int, *, seed: int = 1) -> Path:
    """A JPEG file of about so many kilobytes, of quality 90, the same each time.

    Its grain is made as strong as the size wants it.
    """
    path = CACHE / "pictures" / f"{width}x{height}-{kilobytes}k-{seed}.jpg"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    scene = _scene(width, height, rng)
    grain = rng.standard_normal((height, width, 1)).repeat(3, axis=2)
    low, high = 0.0, 80.0
    data = b""
    for _ in range(12):
        strength = (low + high) / 2
        pixels = (scene + grain * strength).clip(0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=90)
        data = out.getvalue()
        low, high = (strength, high) if len(data) < kilobytes * 1000 else (low, strength)
    path.write_bytes(data)
    return path


def _scene(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    image = Image.new("RGB", (width, height), (120, 150, 190))
    draw = ImageDraw.Draw(image)
    for _ in range(60):
        x, y = rng.integers(0, width), rng.integers(0, height)
        size = int(rng.integers(width // 40, width // 5))
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        draw.ellipse((x - size, y - size, x + size, y + size // 2), fill=colour)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(3)), dtype=np.float32)
