"""An encoded image as the numbers that a model takes, without NumPy.

Every pixel value is one of 256, so each number is looked up, as text or as bytes: 224 x 224 x 3 of
them take some 15 ms, most of it joining. `json.dumps` of NumPy's numbers takes ten times as long.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fingerpost.client.foreign.metadata import TensorSpec

__all__ = ["channels_of", "flat_bytes", "flat_text", "nested_text"]

T = TypeVar("T")

_VALUES: Final = range(256)


def channels_of(data: bytes, spec: TensorSpec) -> list[bytes]:
    """The image's channels, `height x width` bytes each: upright, on white, stretched to the size.

    It is decoded by the rules of the workers; the resampling is bilinear.

    Raises:
        ImageError: it cannot be decoded, or is too large.
    """
    # Imported late: most clients never decode an image.
    from PIL import Image

    from fingerpost.client.images.decoding import (
        ImageConfig,
        guarded,
        load,
        open_image,
        to_mode,
        turn_of,
    )

    image = open_image(data, ImageConfig())

    def decode() -> list[bytes]:
        pixels = to_mode(load(image), "RGB" if spec.channels == 3 else "L")
        turn = turn_of(image)
        if turn is not None:
            pixels = pixels.transpose(turn)
        pixels = pixels.resize((spec.width, spec.height), Image.Resampling.BILINEAR)
        return [pixels.getchannel(each).tobytes() for each in range(spec.channels)]

    return guarded(decode)


def flat_bytes(channels: list[bytes], spec: TensorSpec) -> bytes:
    """All numbers in their order, little-endian."""
    return b"".join(_ordered(channels, _bytes(spec), spec))


def flat_text(channels: list[bytes], spec: TensorSpec) -> str:
    """All numbers in their order, as the items of a JSON list."""
    return ",".join(_ordered(channels, _texts(spec), spec))


def nested_text(channels: list[bytes], spec: TensorSpec) -> str:
    """The numbers as nested JSON lists of the image's shape, without the axis of the batch."""
    mapped = [
        map(table.__getitem__, each) for table, each in zip(_texts(spec), channels, strict=True)
    ]
    if spec.first:
        return _list(_rows(list(each), spec.width) for each in mapped)
    return _rows([_list(pixel) for pixel in zip(*mapped, strict=True)], spec.width)


def _rows(items: list[str], width: int) -> str:
    return _list(_list(items[at : at + width]) for at in range(0, len(items), width))


def _list(items: Iterable[str]) -> str:
    return f"[{','.join(items)}]"


def _ordered(
    channels: list[bytes], tables: tuple[tuple[T, ...], ...], spec: TensorSpec
) -> Iterator[T]:
    mapped = [map(table.__getitem__, each) for table, each in zip(tables, channels, strict=True)]
    if spec.first:
        return chain.from_iterable(mapped)
    return chain.from_iterable(zip(*mapped, strict=True))


@lru_cache(maxsize=64)
def _texts(spec: TensorSpec) -> tuple[tuple[str, ...], ...]:
    if spec.dtype == "uint8":
        return (tuple(map(str, _VALUES)),) * spec.channels
    return tuple(tuple(f"{each:.9g}" for each in channel) for channel in _floats(spec))


@lru_cache(maxsize=64)
def _bytes(spec: TensorSpec) -> tuple[tuple[bytes, ...], ...]:
    if spec.dtype == "uint8":
        return (tuple(bytes((each,)) for each in _VALUES),) * spec.channels
    return tuple(tuple(struct.pack("<f", each) for each in channel) for channel in _floats(spec))


def _floats(spec: TensorSpec) -> Iterator[list[float]]:
    for mean, std in zip(spec.mean, spec.std, strict=True):
        yield [(value * spec.scale - mean) / std for value in _VALUES]
