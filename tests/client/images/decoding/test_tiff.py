"""TIFF: samples of every depth, in both byte orders, with black or white at 0."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.raw_images import tiff_of

from fingerpost.client.images.decoding import ImageConfig, guarded, load, open_image, to_mode
from fingerpost.errors import BrokenImage, UnsupportedImage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, LAB, CFA = 0, 1, 2, 3, 5, 8, 32803


def shown(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(guarded(lambda: to_mode(load(open_image(data, ImageConfig())), "RGB")))


def samples_of(bits: int, channels: int = 1) -> NDArray[np.int64]:
    made = np.random.default_rng(bits).integers(0, 1 << bits, (5, 7, channels))
    made[0, 0], made[0, 1] = 0, (1 << bits) - 1
    return made


def eight_bits(samples: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    return samples >> (bits - 8) if bits > 8 else samples * 255 // ((1 << bits) - 1)


@pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_gray_of_every_depth(bits: int, photometric: int, order: str, deflated: bool) -> None:
    samples = samples_of(bits)
    data = tiff_of(samples, bits, photometric, order=order, deflated=deflated)
    expected = eight_bits(samples, bits)
    if photometric == WHITE_IS_ZERO:
        expected = 255 - expected
    assert np.array_equal(shown(data), np.broadcast_to(expected, (5, 7, 3)))


@pytest.mark.parametrize("deflated", [False, True], ids=["raw", "deflated"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
def test_colours_of_every_depth(bits: int, order: str, deflated: bool) -> None:
    samples = samples_of(bits, 3)
    data = tiff_of(samples, bits, RGB, order=order, deflated=deflated)
    assert np.array_equal(shown(data), eight_bits(samples, bits))


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_is_put_on_white(bits: int, order: str) -> None:
    samples = samples_of(bits, 4)
    data = tiff_of(samples, bits, RGB, order=order, more={338: (3, [2])})
    seen = eight_bits(samples, bits)
    alpha = seen[..., 3:] / 255
    assert np.abs(shown(data) - (seen[..., :3] * alpha + 255 * (1 - alpha))).max() <= 1


@pytest.mark.parametrize("channels", [2, 4], ids=["gray", "colour"])
def test_alpha_that_is_in_the_colours_already(channels: int) -> None:
    """Associated alpha, TIFF 6.0, section 18."""
    samples = samples_of(8, channels)
    samples[..., :-1] = samples[..., :-1] * samples[..., -1:] // 255
    data = tiff_of(samples, 8, RGB if channels == 4 else BLACK_IS_ZERO, more={338: (3, [1])})
    assert np.abs(shown(data) - (samples[..., :-1] + 255 - samples[..., -1:])).max() <= 2


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize("bits", [8, 16])
def test_inks(bits: int, order: str) -> None:
    samples = samples_of(bits, 4)
    seen = 255 - eight_bits(samples, bits)
    expected = seen[..., :3] * seen[..., 3:] / 255
    assert np.abs(shown(tiff_of(samples, bits, CMYK, order=order)) - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_palettes(bits: int) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (3, 1 << bits))
    samples = samples_of(bits)
    data = tiff_of(samples, bits, PALETTE, more={320: (3, (colours << 8).flatten().tolist())})
    assert np.array_equal(shown(data), colours.T[samples[..., 0]])


def test_without_a_photometric_interpretation_0_is_black() -> None:
    """As libtiff has it, where 8 bits were inverted but 16 were not."""
    for bits in (12, 16):
        samples = samples_of(bits)
        expected = np.broadcast_to(eight_bits(samples, bits), (5, 7, 3))
        assert np.array_equal(shown(tiff_of(samples, bits, None)), expected)


@pytest.mark.parametrize("order", ["<", ">"], ids=["II", "MM"])
@pytest.mark.parametrize(
    ("bits", "photometric", "channels", "more"),
    [
        (8, LAB, 3, {}),
        (16, LAB, 3, {}),
        (8, 9, 3, {}),  # ICC's Lab
        (16, CFA, 1, {}),  # raw data of a camera
        (10, BLACK_IS_ZERO, 1, {}),
        (14, BLACK_IS_ZERO, 1, {}),
        (12, RGB, 3, {}),
        (8, BLACK_IS_ZERO, 1, {339: (3, [2])}),
        (16, BLACK_IS_ZERO, 1, {339: (3, [2])}),
        (16, BLACK_IS_ZERO, 1, {339: (3, [3])}),  # floating point
        (8, RGB, 3, {259: (3, [34712])}),  # JPEG 2000
        (8, RGB, 3, {259: (3, [50002])}),  # JPEG XL
        (8, RGB, 3, {259: (3, [34887])}),  # LERC
    ],
)
def test_kinds_that_are_not_read_are_of_another_format(
    bits: int, photometric: int, channels: int, more: dict[int, tuple[int, list[int]]], order: str
) -> None:
    data = tiff_of(samples_of(bits, channels), bits, photometric, order=order, more=more)
    with pytest.raises(UnsupportedImage, match="8 or 16 bits"):
        shown(data)


def test_a_palette_that_is_missing_is_damage() -> None:
    with pytest.raises(BrokenImage):
        shown(tiff_of(samples_of(4), 4, PALETTE))
