"""The table of bad images: what each input gets, and that good ones come out right."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fingerpost.registry import (
    BrokenImage,
    EmptyImage,
    FingerpostError,
    ImageTooLarge,
    UnsupportedImage,
)
from fingerpost.worker.images import ImageLimits, decode, reencode


def save(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def photo(size: tuple[int, int] = (64, 48), mode: str = "RGB") -> Image.Image:
    gradient = np.add.outer(np.arange(size[1]) * 2, np.arange(size[0])).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(gradient)] * 3).convert(mode)


def png_claiming(width: int, height: int) -> bytes:
    """A small PNG whose header claims any size; its data is zeros, as a bomb's are."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(b"\0" * (12_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


JPEG = save(photo(), "JPEG")
PNG = save(photo())
FLOAT_TIFF = save(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")
EPS = save(photo(), "EPS")
BAD = {
    "empty": (b"", EmptyImage),
    "text": (b"hello, world, this is no image", UnsupportedImage),
    "html": (b"<!doctype html><html></html>", UnsupportedImage),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', UnsupportedImage),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", UnsupportedImage),
    "eps": (EPS, UnsupportedImage),
    "float tiff": (FLOAT_TIFF, UnsupportedImage),
    "jpeg without its second half": (JPEG[: len(JPEG) // 2], BrokenImage),
    "jpeg header only": (JPEG[:20], BrokenImage),
    "png without its end": (PNG[: len(PNG) * 2 // 3], BrokenImage),
    "png with a bad checksum": (PNG[:60] + b"\xff\xff" + PNG[62:], BrokenImage),
    "100 megapixels": (png_claiming(10_000, 10_000), ImageTooLarge),
    "400 megapixels": (png_claiming(20_000, 20_000), ImageTooLarge),
    "1 x 200,000": (png_claiming(1, 200_000), BrokenImage),
    "more bytes than allowed": (b"\xff\xd8\xff" + bytes(20_000_000), ImageTooLarge),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_get_their_typed_error(name: str) -> None:
    data, error = BAD[name]
    with pytest.raises(error) as caught:
        decode(data, size=(8, 8), channels=3)
    assert type(caught.value) is error
    assert not caught.value.retryable


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_the_bomb_is_small_and_its_message_says_what_to_do() -> None:
    bomb = BAD["100 megapixels"][0]
    assert len(bomb) < 13_000
    with pytest.raises(ImageTooLarge, match=r"10000 x 10000, 100 megapixels, over the limit of 64"):
        decode(bomb, size=(8, 8), channels=3)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "LA", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_what_the_model_takes(mode: str, channels: int) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.asarray(photo(mode="L")).astype(np.uint16) << 8)
    else:
        image = photo(mode=mode)
    data = save(image, "TIFF" if mode == "CMYK" else "PNG")
    pixels = decode(data, size=(12, 10), channels=channels)
    assert pixels.shape == (12, 10, channels)
    assert pixels.dtype == np.uint8
    expected = np.asarray(photo(mode="L").resize((10, 12), Image.Resampling.BILINEAR))
    if mode != "1":
        assert np.abs(pixels.mean(axis=2) - expected).mean() < 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_on_the_list_is_read(form: str) -> None:
    pixels = decode(save(photo(), form), size=None, channels=3)
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - np.asarray(photo(), dtype=int)).mean() < 6


def test_16_bit_gray_is_scaled_not_cut() -> None:
    image = Image.fromarray(np.full((8, 8), 0x8000, np.uint16))
    assert decode(save(image), size=(4, 4), channels=1).flatten().tolist() == [128] * 16


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert decode(save(image), size=(2, 2), channels=3).flatten().tolist() == [255] * 12


def test_exif_orientation_is_applied() -> None:
    image = Image.new("RGB", (64, 32), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 32, 32))  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to view: the left half is then on top
    data = save(image, "JPEG", exif=exif, quality=95)
    pixels = decode(data, size=None, channels=1)
    assert pixels.shape == (64, 32, 1)
    assert pixels[:30].min() > 200
    assert pixels[34:].max() < 50


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, size=(2, 2), channels=1).min() == 255


def test_a_large_jpeg_comes_out_the_same_through_draft_mode() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8)).resize((1600, 1200))
    data = save(noise, "JPEG", quality=90)
    whole = Image.open(io.BytesIO(data)).resize((64, 64), Image.Resampling.BILINEAR)
    drafted = decode(data, size=(64, 64), channels=3)
    assert np.abs(drafted.astype(int) - np.asarray(whole, dtype=int)).mean() < 2


def test_reencode_leaves_an_upright_jpeg_alone_and_turns_the_rest_into_png() -> None:
    limits = ImageLimits()
    assert reencode(JPEG, limits) is JPEG
    for data in (PNG, save(photo(mode="CMYK"), "JPEG"), save(photo(), "WEBP")):
        assert reencode(data, limits).startswith(b"\x89PNG")
    with pytest.raises(BrokenImage):
        reencode(JPEG[:-200], limits)


@settings(max_examples=300, deadline=None)
@given(
    source=st.sampled_from([JPEG, PNG, save(photo(), "WEBP"), save(photo(), "GIF")]),
    cut=st.integers(0, 2000),
    flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=8),
)
def test_a_mutated_image_gives_pixels_or_a_typed_error(
    source: bytes, cut: int, flips: list[tuple[int, int]]
) -> None:
    data = bytearray(source[: max(0, len(source) - cut)])
    for place, value in flips:
        if place < len(data):
            data[place] = value
    try:
        pixels = decode(bytes(data), size=(8, 8), channels=3)
    except FingerpostError as error:
        assert 400 <= error.status < 500
    else:
        assert pixels.shape == (8, 8, 3)
