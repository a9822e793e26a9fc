"""Tensors without NumPy are those that NumPy makes."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from fingerpost.client.foreign.metadata import TensorSpec
from fingerpost.client.foreign.pixels import channels_of, flat_bytes, flat_text, nested_text
from fingerpost.errors import BrokenImage, UnsupportedImage

RNG = np.random.default_rng(5)


def spec(**changes):
    values = {
        "height": 6,
        "width": 4,
        "channels": 3,
        "first": False,
        "dtype": "float32",
        "scale": 1 / 255,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return TensorSpec(**{**values, **changes})


def image(height=11, width=9):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def encoded(pixels, form="PNG", **save):
    out = io.BytesIO()
    pixels.save(out, form, **save)
    return out.getvalue()


def expected(pixels, of):
    """What NumPy and Pillow make of it, float64 `[1, ...]`."""
    pixels = pixels.convert("RGB" if of.channels == 3 else "L")
    small = pixels.resize((of.width, of.height), Image.Resampling.BILINEAR)
    array = np.asarray(small, np.float64).reshape(of.height, of.width, of.channels)
    if of.dtype == "float32":
        array = (array * of.scale - np.array(of.mean)) / np.array(of.std)
    return (array.transpose(2, 0, 1) if of.first else array)[None]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dtype": "uint8"},
        {"channels": 1, "mean": (0.5,), "std": (0.5,)},
        {"channels": 1, "mean": (0.0,), "std": (1.0,), "dtype": "uint8"},
    ],
    ids=str,
)
def test_all_three_forms_have_numpys_numbers(first, changes):
    of, pixels = spec(first=first, **changes), image()
    channels = channels_of(encoded(pixels), of)
    wanted = expected(pixels, of)
    assert wanted.shape == tuple(of.shape)
    kind = np.dtype("<f4") if of.dtype == "float32" else np.dtype("u1")
    sent = np.frombuffer(flat_bytes(channels, of), kind).reshape(of.shape)
    np.testing.assert_allclose(sent, wanted, rtol=1e-6, atol=1e-6)
    text = np.array(json.loads(f"[{flat_text(channels, of)}]")).reshape(of.shape)
    np.testing.assert_allclose(text, wanted, rtol=1e-7, atol=1e-7)
    nested = np.array(json.loads(nested_text(channels, of)))[None]
    assert nested.shape == tuple(of.shape)
    np.testing.assert_allclose(nested, wanted, rtol=1e-7, atol=1e-7)


def test_an_image_is_upright_and_on_white():
    pixels = image(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(pixels.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    of = spec()
    assert channels_of(turned, of) == channels_of(encoded(pixels), of)
    clear = encoded(Image.new("RGBA", (8, 8), (10, 20, 30, 0)))
    assert set(b"".join(channels_of(clear, of))) == {255}


def test_what_cannot_be_decoded():
    with pytest.raises(UnsupportedImage):
        channels_of(b"not an image", spec())
    with pytest.raises(BrokenImage):
        channels_of(encoded(image(200, 200))[:2000], spec())
