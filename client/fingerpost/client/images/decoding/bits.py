"""The two bytes of each sample of 16 bits, as images of 8 bits.

Without NumPy, which clients need not have.
"""

from __future__ import annotations

from PIL import Image

__all__ = ["lower", "upper"]


def upper(image: Image.Image) -> Image.Image:
    """The upper byte of each sample, mode L. `convert` would cut at 255 instead.

    Args:
        image: of a mode that begins with `I;16`.
    """
    return _byte(image, 0 if image.mode == "I;16B" else 1)


def lower(image: Image.Image) -> Image.Image:
    """The lower byte of each sample, mode L; see `upper`."""
    return _byte(image, 1 if image.mode == "I;16B" else 0)


def _byte(image: Image.Image, place: int) -> Image.Image:
    return Image.frombytes("L", image.size, image.tobytes()[place::2])
