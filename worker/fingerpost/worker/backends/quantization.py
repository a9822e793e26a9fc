"""Integers that stand for real numbers, as quantized models take and give them.

`real = (integer - zero_point) * scale` (https://ai.google.dev/edge/litert/models/quantization_spec).
Callers of a backend see real numbers only: they are quantized and dequantized here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.worker.backends.pixels import is_pixels
from fingerpost.worker.models.manifest import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item
    from fingerpost.worker.models.manifest import Preprocessing

__all__ = ["Quantization", "QuantizedPixels", "byte_values", "takes_bytes"]

_LEVELS: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """How a tensor's integers are read.

    Attributes:
        scale: above 0.
        zero_point: the integer that stands for 0.
        dtype: NumPy's name of the integers' type.
    """

    scale: float
    zero_point: int
    dtype: str

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """The nearest integers, of `dtype`; what lies outside gets the first or last one.

        Args:
            values: real numbers; NaN counts as 0.
        """
        limits = np.iinfo(self.dtype)
        numbers = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
        integers: NDArray[Any] = numbers.astype(np.float32, copy=False) / np.float32(self.scale)
        np.rint(integers, out=integers)
        integers += self.zero_point
        np.clip(integers, limits.min, limits.max, out=integers)
        return integers.astype(self.dtype)

    def dequantize(self, integers: NDArray[Any]) -> NDArray[np.float32]:
        """The real numbers, float32."""
        values = integers.astype(np.float32)
        values -= self.zero_point
        values *= np.float32(self.scale)
        return values


def takes_bytes(quantization: Quantization, preprocessing: Preprocessing) -> bool:
    """Whether an image's pixels are the model's integers as they are.

    That is what models of 8 bits expect of images, whatever their scale: it is their own scaling.
    So it is, unless `model.toml` says a scaling, which then is that of the real numbers.
    """
    eight = quantization.dtype in ("uint8", "int8")
    return eight and (preprocessing.mean, preprocessing.std) == (0.0, 1.0)


def byte_values(pixels: NDArray[Any], quantization: Quantization) -> NDArray[Any]:
    """Pixels from 0 to 255 as 8-bit integers of the model's type: of int8, -128 to 127."""
    if quantization.dtype == "uint8":
        return pixels
    shifted: NDArray[Any] = np.bitwise_xor(pixels, 128).view(np.int8)
    return shifted


class QuantizedPixels:
    """Makes integers of pixels by a table, which is exact and needs no floats of a whole image.

    Args:
        wanted: the model's input, of real numbers.
        quantization: how it is quantized.
    """

    def __init__(self, wanted: ImageInput, quantization: Quantization) -> None:
        self.wanted: Final = replace(wanted, dtype="uint8")
        self._axis = 1 if wanted.layout is Layout.NCHW else -1
        pixels = np.arange(_LEVELS, dtype=np.float32)
        preprocessing = wanted.preprocessing
        mean, std = (
            np.broadcast_to(np.asarray(each, np.float32), wanted.channels)
            for each in (preprocessing.mean, preprocessing.std)
        )
        self._tables = [
            quantization.quantize((pixels - mean[channel]) * np.reciprocal(std[channel]))
            for channel in range(wanted.channels)
        ]
        self._same = all(np.array_equal(each, self._tables[0]) for each in self._tables)

    def fit(self, images: Sequence[Item]) -> bool:
        """Whether all are pixels, as they were decoded."""
        return all(map(is_pixels, images))

    def integers(self, batch: NDArray[Any]) -> NDArray[Any]:
        """What the model takes.

        Args:
            batch: uint8, as `stack` makes it for `wanted`.
        """
        if self._same:
            return np.take(self._tables[0], batch)
        found = np.empty(batch.shape, self._tables[0].dtype)
        for channel, table in enumerate(self._tables):
            place = (slice(None), channel) if self._axis == 1 else (..., channel)
            np.take(table, batch[place], out=found[place], mode="clip")
        return found
