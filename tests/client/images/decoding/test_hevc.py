"""Pictures of a HEIC that are decoded and not shown."""

from __future__ import annotations

import pytest
from PIL import Image
from tests.support.hostile_heif import heic, heic_of, hidden
from tests.support.pictures import photo

from fingerpost.client.images.decoding import ImageConfig, guarded, load, open_image
from fingerpost.client.images.decoding.hevc import check_frames
from fingerpost.errors import BrokenImage, UnsupportedImage

CLEAR = photo((64, 48), "RGBA")
CLEAR.putalpha(photo((64, 48), "L"))


@pytest.mark.parametrize(("count", "refused"), [(0, False), (7, False), (8, True), (3000, True)])
def test_hidden_pictures_are_counted(count: int, refused: bool) -> None:
    data = heic(count)
    if refused:
        with pytest.raises(
            UnsupportedImage, match="a picture of the HEIC has .* frames, more than 8"
        ):
            open_image(data, ImageConfig())
    else:
        image = open_image(data, ImageConfig())
        assert guarded(lambda: load(image)).size == (128, 128)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (photo((64, 48)), {}),
        (photo((64, 48), "L"), {}),
        (CLEAR, {}),
        (photo((64, 48)), {"save_all": True, "append_images": [photo((64, 48))] * 20}),
        (Image.new("RGB", (900, 700)), {}),
    ],
    ids=["still", "gray", "alpha", "several", "large"],
)
def test_pictures_pass(image: Image.Image, options: dict[str, object]) -> None:
    data = heic_of(image, **options)
    check_frames(data)
    for cut in range(0, len(data), 7):
        try:
            check_frames(data[:cut])
        except (BrokenImage, UnsupportedImage):
            continue


def test_lengths_that_the_decoder_reads_otherwise_are_refused() -> None:
    data = heic_of(photo((64, 48)))
    place = data.index(b"hvcC") + 4 + 21
    assert data[place] & 3 == 3
    changed = data[:place] + bytes([data[place] & ~3]) + data[place + 1 :]
    with pytest.raises(UnsupportedImage, match="lengths that are not of 4 bytes"):
        open_image(changed, ImageConfig())


def test_work_is_bounded() -> None:
    """Of empty units without end, and of boxes in boxes."""
    with pytest.raises(UnsupportedImage, match="pieces|frames"):
        check_frames(heic_with_units(100_000))
    with pytest.raises(BrokenImage, match="HEIC"):
        check_frames(b"\0\0\0\0moov" * 100_000)


def heic_with_units(count: int) -> bytes:
    return hidden(heic_of(photo((128, 128))), b"\0\0\0\2\x46\1" * count)
