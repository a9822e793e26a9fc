"""Integers for real numbers: by the formula, in one step or by a table."""

from __future__ import annotations

import numpy as np
import pytest

from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.backends.pixels import stack
from fingerpost.worker.backends.quantization import (
    Quantization,
    QuantizedPixels,
    byte_values,
    takes_bytes,
)
from fingerpost.worker.models.manifest import ChannelOrder, Layout, Preprocessing

EIGHT = Quantization(scale=1 / 127.5, zero_point=-1, dtype="int8")


def test_the_nearest_integer_within_the_type() -> None:
    values = np.array([0, 1 / 127.5, -1, 0.9, 99, -99, np.nan, np.inf], np.float32)
    assert EIGHT.quantize(values).tolist() == [-1, 0, -128, 114, 127, -128, -1, 127]
    assert EIGHT.quantize(values).dtype == np.int8
    every = np.arange(-128, 128).astype(np.int8)
    assert np.array_equal(EIGHT.quantize(EIGHT.dequantize(every)), every)
    assert EIGHT.dequantize(every) == pytest.approx((np.arange(-128.0, 128) + 1) / 127.5)


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("std", [127.5, (58.0, 57.0, 60.0)])
def test_a_table_gives_what_the_formula_gives(
    layout: Layout, std: float | tuple[float, ...]
) -> None:
    scaling = Preprocessing(order=ChannelOrder.BGR, mean=(127.5, 120.0, 110.0), std=std)
    wanted = ImageInput(height=16, width=17, layout=layout, preprocessing=scaling)
    quantized = Quantization(scale=0.0187, zero_point=-14, dtype="int8")
    images = list(np.random.default_rng(4).integers(0, 256, (3, 16, 17, 3), np.uint8))
    pixels = QuantizedPixels(wanted, quantized)
    assert pixels.fit(images)
    assert not pixels.fit([images[0].astype(np.float32)])
    found = pixels.integers(stack(images, pixels.wanted))
    expected = quantized.quantize(stack(images, wanted))
    assert found.dtype == np.int8
    assert len(np.unique(found)) > 100
    assert np.array_equal(found, expected)


def test_pixels_are_the_integers_unless_a_scaling_is_said() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    unsigned = Quantization(scale=1 / 255, zero_point=0, dtype="uint8")
    assert np.array_equal(byte_values(pixels, unsigned), pixels)
    assert np.array_equal(byte_values(pixels, EIGHT), np.arange(-128, 128))
    assert pixels[0] == 0  # they are the caller's
    for quantization, scaling, expected in (
        (EIGHT, Preprocessing(), True),
        (unsigned, Preprocessing(), True),
        (unsigned, Preprocessing(std=255.0), False),
        (Quantization(scale=0.1, zero_point=0, dtype="int16"), Preprocessing(), False),
    ):
        assert takes_bytes(quantization, scaling) is expected
