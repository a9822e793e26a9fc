"""What can be sent, and how each wrong thing is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fingerpost.client.images.load import image_key, load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.errors import BrokenImage, EmptyImage, ImageError, UnsupportedImage

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


def pixels(data: bytes | OneShot) -> np.ndarray:
    assert isinstance(data, bytes)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        return np.asarray(image)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
async def test_bytes_are_sent_as_they_are(make):
    assert await load_image(make(b"any bytes")) == b"any bytes"


@pytest.mark.parametrize("make", [str, Path])
async def test_files_are_sent_as_they_are(tmp_path, make):
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"any bytes")
    assert await load_image(make(path)) == b"any bytes"
    assert image_key(make(path), 7) == str(path)
    assert image_key(b"", 7) == "7"


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        GREY[:, :, None],
        COLOUR,
        COLOUR[::2, ::-1],
        np.zeros((4, 5, 4), np.uint8),
    ],
    ids=["grey", "one channel", "colour", "strided", "alpha"],
)
async def test_arrays_arrive_pixel_by_pixel(array):
    assert (pixels(await load_image(array)) == array.squeeze()).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
async def test_pil_images(mode):
    sent = Image.fromarray(COLOUR).convert(mode)
    assert pixels(await load_image(sent)).shape[:2] == (6, 8)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (b"", EmptyImage, "no bytes"),
        (GREY.astype("float32"), UnsupportedImage, r"'<f4'.*astype\('uint8'\)"),
        (GREY.astype("int64"), UnsupportedImage, "'<i8'"),
        (np.zeros((2, 3, 4, 3), np.uint8), UnsupportedImage, r"\(2, 3, 4, 3\)"),
        (np.zeros((4, 4, 2), np.uint8), UnsupportedImage, r"\(4, 4, 2\)"),
        (np.zeros(4, np.uint8), UnsupportedImage, r"\(4,\)"),
        (np.zeros((0, 4), np.uint8), EmptyImage, r"\(0, 4\)"),
        (Image.new("F", (2, 2)), UnsupportedImage, "'F'"),
        (Image.new("RGB", (0, 2)), EmptyImage, r"\(0, 2\)"),
        (7, UnsupportedImage, "int is not a supported image"),
        (None, UnsupportedImage, "NoneType is not a supported image"),
        ([1, 2], UnsupportedImage, "list is not a supported image"),
        ("/no/such.png", ImageError, "cannot read '/no/such.png'"),
        (Path("/"), ImageError, "cannot read '/'"),
        ("a\0b", ImageError, "cannot read"),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
async def test_wrong_images(image, error, message):
    with pytest.raises(ImageError, match=message) as caught:
        await load_image(image)
    assert type(caught.value) is error


async def test_a_damaged_file_in_a_pil_image():
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "PNG")
    with (
        Image.open(io.BytesIO(buffer.getvalue()[:1000])) as image,
        pytest.raises(BrokenImage, match="cannot decode"),
    ):
        await load_image(image)
