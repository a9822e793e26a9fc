"""Small files that were once read wrong: the value of all pixels, or the error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fingerpost.client.images.decoding import ImageConfig, load, open_image, to_mode
from fingerpost.errors import BrokenImage

CASES = Path(__file__).with_name("cases")
# Gray, 0 to 255, with white under what is transparent.
GRAYS = {
    "png-2bit-gray-trns.png": 255,
    "png-16bit-gray-trns0.png": 255,
    "png-16bit-rgb-trns-opaque.png": 0,
    "tiff-12bit-white.tiff": 255,
    "tiff-16bit-miniswhite.tiff": 255,
    "png-iccp-2mb.png": 64,
    "png-gama-short.png": 64,
    "png-text-crc.png": 64,
}


@pytest.mark.parametrize("name", GRAYS)
def test_the_gray_of_each_case(name: str) -> None:
    image = open_image((CASES / name).read_bytes(), ImageConfig())
    pixels = np.asarray(to_mode(load(image), "L"))
    assert pixels.shape == (32, 32)
    assert set(pixels.flatten().tolist()) == {GRAYS[name]}


def test_wrong_sums_of_pixels_are_damage() -> None:
    with pytest.raises(BrokenImage, match="IDAT"):
        open_image((CASES / "png-idat-crc.png").read_bytes(), ImageConfig())


def test_each_case_is_tested() -> None:
    assert {path.name for path in CASES.iterdir()} == {*GRAYS, "png-idat-crc.png"}
