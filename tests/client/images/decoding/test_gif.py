"""GIF: what the first frame does not cover is white."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from tests.support.pictures import save

from fingerpost.client.images.decoding import ImageConfig, load, open_image, to_mode


def on_canvas(frame: Image.Image, left: int, top: int, **options: object) -> bytes:
    """The frame at that place of a canvas of 32 x 24."""
    data = bytearray(save(frame, "GIF", **options))
    data[6:10] = b"\x20\0\x18\0"  # of the screen
    place = data.index(b"\x2c\0\0\0\0")
    data[place + 1 : place + 5] = bytes([left, 0, top, 0])
    return bytes(data)


@pytest.mark.parametrize("mode", ["P", "L", "1"])
@pytest.mark.parametrize(("left", "top"), [(0, 0), (5, 3), (24, 16)])
def test_the_uncovered_canvas_is_white(mode: str, left: int, top: int) -> None:
    frame = Image.new(mode, (8, 8), 0)  # the first colour, which Pillow would fill with
    if mode == "P":
        frame.putpalette([10, 20, 30] + [0] * 765)
    image = open_image(on_canvas(frame, left, top), ImageConfig())
    pixels = np.asarray(to_mode(load(image), "RGB"))
    expected = np.full((24, 32, 3), 255, np.uint8)
    expected[top : top + 8, left : left + 8] = (10, 20, 30) if mode == "P" else 0
    assert np.array_equal(pixels, expected)


def test_a_frame_that_is_transparent_is_white_too() -> None:
    frame = Image.new("P", (8, 8), 1)
    frame.putpalette([0, 0, 0, 200, 0, 0])
    frame.putpixel((0, 0), 0)
    data = on_canvas(frame, 4, 4, transparency=1)
    assert Image.open(io.BytesIO(data)).size == (32, 24)
    pixels = np.asarray(to_mode(load(open_image(data, ImageConfig())), "L"))
    assert pixels[4, 4] == 0
    assert np.delete(pixels.flatten(), 4 * 32 + 4).min() == 255
