"""AVIF and HEIC, as phones write them; HEIC needs the extra `heic`."""

from __future__ import annotations

import io
import struct
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.hostile_heif import tiled
from tests.support.pictures import difference, photo, save

from fingerpost.client.images.decoding import (
    ImageConfig,
    guarded,
    load,
    open_image,
    to_mode,
    turn_of,
)
from fingerpost.client.images.decoding.heif import heif_format
from fingerpost.errors import BrokenImage, ImageTooLarge, UnsupportedImage
from fingerpost.worker.images import decode


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    if form == "AVIF":
        return save(image, "AVIF", **options)
    from pillow_heif.as_plugin import _save_heif

    out = io.BytesIO()
    image.encoderinfo = options  # type: ignore[attr-defined]
    _save_heif(image, out, "picture.heic")
    return out.getvalue()


def shown(data: bytes, mode: str = "RGB") -> NDArray[np.uint8]:
    image = open_image(data, ImageConfig())
    return np.asarray(guarded(lambda: to_mode(load(image), mode)))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
def test_pixels(form: str, mode: str) -> None:
    picture = photo((64, 48), mode)
    seen = shown(encoded(picture, form, quality=95))
    assert difference(seen, picture.convert("RGB")).mean() < 3


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
def test_transparency_is_on_white(form: str) -> None:
    picture = photo((64, 48), "RGBA")
    picture.paste((0, 0, 0, 0), (0, 0, 32, 48))
    seen = shown(encoded(picture, form, quality=95))
    assert seen[:, :30].min() > 245
    assert difference(seen[:, 34:], np.asarray(photo((64, 48)))[:, 34:]).mean() < 3


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_container_turns_the_picture(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = photo((64, 48))
    picture.paste((255, 0, 0), (0, 0, 20, 10))
    jpeg = open_image(save(picture, "JPEG", exif=exif, quality=95), ImageConfig())
    image = open_image(encoded(picture, form, exif=exif.tobytes(), quality=95), ImageConfig())
    uprights = []
    for each in (jpeg, image):
        pixels = to_mode(load(each), "RGB")
        turn = turn_of(each)
        uprights.append(np.asarray(pixels if turn is None else pixels.transpose(turn)))
    assert uprights[0].shape == uprights[1].shape
    assert difference(*uprights).mean() < 4


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
def test_damage_and_size(form: str) -> None:
    data = encoded(photo((64, 48)), form)
    for broken in (data[: len(data) // 2], data[:60], data[:-40]):
        with pytest.raises(BrokenImage):
            shown(broken)
    assert open_image(data, ImageConfig(max_pixels=64 * 48 * 2)).size == (64, 48)
    with pytest.raises(ImageTooLarge):
        open_image(data, ImageConfig(max_pixels=64 * 48 * 2 - 1))
    clear = encoded(Image.new("RGBA", (64, 48), (9, 9, 9, 99)), form)
    with pytest.raises(ImageTooLarge):
        open_image(clear, ImageConfig(max_pixels=64 * 48 * 4 - 1))


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(photo((64, 48)), "HEIC")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif.as_plugin", None)
    with pytest.raises(UnsupportedImage, match=r"fingerpost\[heic\]"):
        open_image(data, ImageConfig())


def head(*brands: bytes, size: int | None = None) -> bytes:
    body = b"ftyp" + brands[0] + bytes(4) + b"".join(brands[1:])
    return struct.pack(">I", len(body) + 4 if size is None else size) + body + b"\0\0\0\1heic"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (head(b"avif"), "AVIF"),
        (head(b"avis", b"mif1"), "AVIF"),
        (head(b"mif1", b"miaf", b"avif"), "AVIF"),
        (head(b"heic", b"mif1"), "HEIC"),
        (head(b"mif1", b"mif1", b"heic"), "HEIC"),
        (head(b"msf1", b"hevc"), "HEIC"),
        (head(b"mif1"), None),
        (head(b"mp42", b"isom"), None),
        (head(b"qt  ", size=0), None),
        (head(b"crx ", size=1 << 31), "HEIC"),  # brands are read as far as they go
        (b"\0\0\0\x08ftyp", None),
        (b"ftyp", None),
    ],
)
def test_formats_by_their_brands(data: bytes, expected: str | None) -> None:
    assert heif_format(data) == expected


def test_a_picture_of_tiles() -> None:
    """As phones write them: each tile once, of little more than the picture together."""
    gray = decode(tiled(128, (250, 250), times=2), size=None, channels=1)
    assert gray.shape == (250, 250, 1)


def test_tiles_of_tiles_are_counted() -> None:
    limits = ImageConfig(max_pixels=4 * 4 * 128 * 128)
    open_image(tiled(128, (64, 64), times=4), limits)
    with pytest.raises(ImageTooLarge, match="tiles with 4 megapixels in all"):
        open_image(tiled(128, (64, 64), times=4, deep=True), limits)


def test_a_picture_made_of_itself() -> None:
    data = tiled(64, (64, 64), times=2)
    references = b"dimg\0\2\0\4" + b"\0\1" * 4
    assert data.count(references) == 1
    with pytest.raises(BrokenImage, match="made of each other too often"):
        open_image(data.replace(references, b"dimg\0\2\0\4" + b"\0\2" * 4), ImageConfig())
