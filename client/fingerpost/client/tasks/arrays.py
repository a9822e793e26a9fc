"""Arrays of bytes: NumPy's where NumPy is installed, else nested lists."""

from __future__ import annotations

import importlib
import struct
from functools import cache
from math import prod
from typing import Any, Final

from fingerpost.client.tasks.wire import DATATYPES, LENGTH

__all__ = ["array_of", "array_of_items", "rows_of"]

# The letters of `struct` for the codes of `DATATYPES`.
_LETTERS: Final = {
    "?": "?",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "f2": "e",
    "f4": "f",
    "f8": "d",
}


@cache
def _numpy() -> Any:
    """NumPy, which the bare install does not have; None without it."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def array_of(datatype: str, shape: tuple[int, ...], data: bytes | memoryview) -> Any:
    """The array that little-endian bytes are.

    Args:
        datatype: such as `FP32`; elements of `BYTES` stand after their length in 4 bytes.
        shape: its axes.
        data: exactly its bytes.

    Returns:
        A NumPy array that may be changed; without NumPy nested lists; of `BYTES` always lists.

    Raises:
        ValueError: an unknown datatype, or another number of bytes.
    """
    count = prod(shape)
    if datatype == "BYTES":
        return _nested(_elements(bytes(data), count), shape)
    code = DATATYPES.get(datatype)
    if code is None:
        raise ValueError(f"datatype {datatype!r} is not known")
    size = struct.calcsize(f"<{_LETTERS[code]}") * count
    if len(data) != size:
        raise ValueError(f"{len(data):,} bytes for {datatype} {list(shape)}, which has {size:,}")
    numpy = _numpy()
    if numpy is not None:
        return numpy.frombuffer(bytearray(data), f"<{code}".replace("<?", "?")).reshape(shape)
    return _nested(list(struct.unpack(f"<{count}{_LETTERS[code]}", data)), shape)


def array_of_items(datatype: str, shape: tuple[int, ...], items: list[Any]) -> Any:
    """The array of items in their order; what `array_of` makes of their bytes.

    Raises:
        ValueError, OverflowError: an item is not of the type.
    """
    numpy = _numpy()
    if numpy is None or datatype == "BYTES":
        return _nested(items, shape)
    try:
        with numpy.errstate(over="raise"):
            return numpy.array(items, DATATYPES[datatype]).reshape(shape)
    except (TypeError, FloatingPointError) as error:
        raise ValueError(str(error)) from error


def rows_of(array: Any) -> Any:
    """The numbers as Python's own, nested as in the array."""
    return array.tolist() if hasattr(array, "tolist") else array


def _elements(data: bytes, count: int) -> list[bytes]:
    found = []
    at = 0
    for _ in range(count):
        if at + LENGTH.size > len(data):
            raise ValueError("BYTES end within a length")
        (length,) = LENGTH.unpack_from(data, at)
        at += LENGTH.size
        found.append(data[at : at + length])
        at += length
    if at != len(data):
        raise ValueError(f"{len(data):,} bytes for BYTES [{count}], which have {at:,}")
    return found


def _nested(flat: list[Any], shape: tuple[int, ...]) -> Any:
    if len(shape) < 2:
        return flat if shape else flat[0]
    step = prod(shape[1:])
    return [_nested(flat[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]
