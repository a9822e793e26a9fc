"""A box follows its pixels when Pillow turns the image upright, for each EXIF orientation."""

from __future__ import annotations

import pytest
from PIL import Image, ImageOps

from fingerpost.deploy.evaluation.truth.upright import SIDEWAYS, upright_box


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_box_is_where_pillow_puts_the_pixels(orientation: int) -> None:
    image = Image.new("L", (11, 7))
    image.paste(255, (1, 2, 6, 4))
    image.getexif()[0x0112] = orientation
    turned = ImageOps.exif_transpose(image)
    assert turned.size == ((7, 11) if orientation in SIDEWAYS else (11, 7))
    assert upright_box((1, 2, 6, 4), 11, 7, orientation) == turned.getbbox()
