"""WebP: what an animation's first frame does not cover is white."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image
from tests.support.pictures import save

from fingerpost.client.images.decoding import ImageConfig, load, open_image, to_mode

ANIMATION, ALPHA = 2, 16


def chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + bytes(len(body) & 1)


def three(value: int) -> bytes:
    return value.to_bytes(3, "little")


def animation(frame: Image.Image, left: int, top: int, *, flags: int, lossless: bool) -> bytes:
    """One frame at an even place of a canvas of 32 x 24."""
    pixels = save(frame, "WEBP", lossless=lossless, quality=100)[12:]
    across, down = frame.size
    place = three(left // 2) + three(top // 2) + three(across - 1) + three(down - 1)
    body = (
        chunk(b"VP8X", struct.pack("<I", ANIMATION | flags) + three(31) + three(23))
        + chunk(b"ANIM", b"\xff\0\0\xff\0\0")  # a background that browsers do not show
        + chunk(b"ANMF", place + three(100) + b"\0" + pixels)
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


@pytest.mark.parametrize("lossless", [False, True])
@pytest.mark.parametrize("flags", [0, ALPHA])
@pytest.mark.parametrize(("left", "top"), [(0, 0), (4, 6), (24, 16)])
def test_the_uncovered_canvas_is_white(left: int, top: int, flags: int, lossless: bool) -> None:
    frame = Image.new("RGB", (8, 8), (10, 200, 30))
    data = animation(frame, left, top, flags=flags, lossless=lossless)
    pixels = np.asarray(to_mode(load(open_image(data, ImageConfig())), "RGB"))
    expected = np.full((24, 32, 3), 255, int)
    expected[top : top + 8, left : left + 8] = (10, 200, 30)
    assert np.abs(pixels - expected).max() <= 3
