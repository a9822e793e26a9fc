"""AVIF and HEIC pictures that ask for much work, and some with frames behind the shown one."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image

from fingerpost.errors import BrokenImage, ImageError, UnsupportedImage
from tests.support.pictures import photo, save

__all__ = ["HOSTILE_HEIF", "REFUSED_HEIF", "avif", "heic", "heic_of", "hidden"]


def hidden(data: bytes, frames: bytes) -> bytes:
    """A picture whose data is followed by further frames: `mdat` must be its last box."""
    place = data.rindex(b"mdat") + 4
    picture = data[place:]
    longer = picture + frames
    where = data.index(b"iloc")
    old, new = struct.pack(">I", len(picture)), struct.pack(">I", len(longer))
    assert data[where : place - 8].count(old) == 1
    head = data[:where] + data[where : place - 8].replace(old, new)
    return head + struct.pack(">I", len(longer) + 8) + b"mdat" + longer


def avif(count: int, obu: bytes = b"\x1a\x00") -> bytes:
    """An AVIF whose picture is followed by OBUs: frame headers of no bytes."""
    return hidden(save(photo((64, 48)), "AVIF"), obu * count)


def heic(count: int, size: tuple[int, int] = (128, 128)) -> bytes:
    """A HEIC whose picture is followed by so many copies of itself. It needs the extra `heic`."""
    data = heic_of(photo(size))
    return hidden(data, data[data.rindex(b"mdat") + 4 :] * count)


def heic_of(image: Image.Image, **options: object) -> bytes:
    from pillow_heif.as_plugin import _save_heif

    out = io.BytesIO()
    image.encoderinfo = options  # type: ignore[attr-defined]
    _save_heif(image, out, "picture.heic")
    return out.getvalue()


def _noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(values)


HOSTILE_HEIF: Final[dict[str, Callable[[], bytes]]] = {
    "avif: 32 megapixels": lambda: save(Image.new("RGB", (8000, 4000)), "AVIF", speed=10),
    "avif: 16 megapixels, transparent": lambda: save(
        Image.new("RGBA", (4000, 4000)), "AVIF", speed=10
    ),
    "avif: noise": lambda: save(_noise(2000, 1500), "AVIF", speed=10, quality=100),
    "avif: 20,000 hidden frames": lambda: avif(20_000),
    "avif: 1,000,000 delimiters": lambda: avif(1_000_000, b"\x12\x00"),
    "avif: boxes in boxes": lambda: b"\0\0\0\x10ftypavif\0\0\0\0" + b"\0\0\0\0moov" * 1_000_000,
    "heic: 8 megapixels": lambda: heic_of(Image.new("RGB", (4000, 2000))),
    "heic: noise": lambda: heic_of(_noise(800, 600), quality=100),
    "heic: 3,000 hidden pictures": lambda: heic(3000),
    "heic: boxes in boxes": lambda: b"\0\0\0\x10ftypheic\0\0\0\0" + b"\0\0\0\0moov" * 1_000_000,
}

# Those that are refused before they are decoded, and with what.
REFUSED_HEIF: Final[dict[str, type[ImageError]]] = {
    "avif: 20,000 hidden frames": UnsupportedImage,
    "avif: 1,000,000 delimiters": UnsupportedImage,
    "avif: boxes in boxes": BrokenImage,
    "heic: 3,000 hidden pictures": UnsupportedImage,
    "heic: boxes in boxes": BrokenImage,
}
