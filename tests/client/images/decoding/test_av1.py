"""Frames of an AVIF that are decoded and not shown."""

from __future__ import annotations

import pytest
from PIL import Image
from tests.support.hostile_heif import avif
from tests.support.pictures import photo, save

from fingerpost.client.images.decoding import ImageConfig, open_image
from fingerpost.client.images.decoding.av1 import check_frames
from fingerpost.errors import BrokenImage, UnsupportedImage

CLEAR = photo((64, 48), "RGBA")
CLEAR.putalpha(photo((64, 48), "L"))


@pytest.mark.parametrize(("count", "refused"), [(0, False), (7, False), (8, True), (20_000, True)])
def test_hidden_frames_are_counted(count: int, refused: bool) -> None:
    data = avif(count)
    if refused:
        with pytest.raises(UnsupportedImage, match="frames"):
            open_image(data, ImageConfig())
    else:
        check_frames(data)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (photo((64, 48)), {}),
        (CLEAR, {}),
        (photo((64, 48)), {"save_all": True, "append_images": [photo((64, 48))] * 20}),
        (Image.new("RGB", (900, 700)), {"tile_rows": 1, "tile_cols": 1}),
    ],
    ids=["still", "alpha", "sequence", "tiles"],
)
def test_pictures_pass(image: Image.Image, options: dict[str, object]) -> None:
    data = save(image, "AVIF", **options)
    check_frames(data)
    for cut in range(0, 400, 7):
        try:
            check_frames(data[:cut])
        except (BrokenImage, UnsupportedImage):
            continue


def test_work_is_bounded() -> None:
    """Of delimiters without end, and of boxes in boxes."""
    with pytest.raises(UnsupportedImage, match="pieces"):
        check_frames(avif(1_000_000, b"\x12\x00"))
    with pytest.raises(BrokenImage):
        check_frames(b"\0\0\0\0moov" * 100_000)
    with pytest.raises(BrokenImage, match="boxes"):
        check_frames((b"\0\0\0\x10trak" + b"\0\0\0\x08free") * 100_000)
