"""What can be sent, and how each wrong thing is told."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

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
    """Of a format that workers do not read; the file of others is sent, and the worker says it."""
    for form, damaged in (("PPM", True), ("PNG", False)):
        data = encoded(Image.effect_noise((64, 64), 50), form)[:1000]
        with Image.open(io.BytesIO(data)) as image:
            if damaged:
                with pytest.raises(BrokenImage, match="cannot decode"):
                    await load_image(image)
            else:
                assert await load_image(image) == data


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO"])
async def test_an_opened_file_is_sent_as_it_is(form, tmp_path):
    options = {"save_all": True} if form == "MPO" else {}
    data = encoded(Image.fromarray(COLOUR), form, exif=TURNED, **options)
    path = tmp_path / "photo"
    path.write_bytes(data)
    with Image.open(path) as image:
        if form == "WEBP":  # Pillow decodes it in one piece
            assert pixels(await load_image(image)).shape == (8, 6, 3)
        else:
            assert await load_image(image) == data
        image.load()
        assert image.size == ((6, 8) if form == "TIFF" else (8, 6))  # the caller's, as it was
    assert await load_image(Image.open(io.BytesIO(b"".join([data])))) is not None


async def test_what_is_sent_of_a_pil_image_is_upright():
    data = encoded(Image.fromarray(COLOUR), "PNG", exif=TURNED)
    upright = np.rot90(COLOUR, -1)
    opened = Image.open(io.BytesIO(data))
    opened.load()
    for image in (opened, opened.copy(), opened.convert("RGB"), ImageOps.exif_transpose(opened)):
        assert np.array_equal(pixels(await load_image(image)), upright)
    assert np.array_equal(np.asarray(opened), COLOUR)


async def test_later_frames_and_drafts_are_not_the_file():
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    opened = Image.open(
        io.BytesIO(encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    )
    opened.seek(1)
    assert set(pixels(await load_image(opened)).flatten()) == {255}
    drafted = Image.open(io.BytesIO(encoded(Image.effect_noise((64, 64), 9), "JPEG")))
    drafted.draft("L", (8, 8))
    assert pixels(await load_image(drafted)).shape == (8, 8)


@pytest.mark.parametrize("mode", ["PA", "La", "RGBa"])
async def test_transparency_in_other_modes_is_kept(mode):
    image = {
        "PA": Image.new("P", (4, 4), 0).convert("PA"),
        "La": Image.new("LA", (4, 4), (9, 0)).convert("La"),
        "RGBa": Image.new("RGBA", (4, 4), (9, 9, 9, 0)).convert("RGBa"),
    }[mode]
    if mode == "PA":
        image.putalpha(0)
    assert set(pixels(await load_image(image))[..., -1].flatten()) == {0}


@pytest.mark.parametrize("mode", ["I", "F", "I;16", "I;16B", "I;16L"])
async def test_modes_without_a_fixed_range_are_refused(mode):
    with pytest.raises(UnsupportedImage, match=f"'{mode}'"):
        await load_image(Image.new(mode, (4, 4)))
