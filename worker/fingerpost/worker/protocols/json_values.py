"""JSON values in, Python's and NumPy's out."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from fingerpost.errors import InvalidRequest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    T = TypeVar("T")

__all__ = ["decode_json", "from_base64", "numbers"]


def decode_json(data: bytes | memoryview | msgspec.Raw, kind: type[T], what: str) -> T:
    """Decode JSON into a type.

    Args:
        what: the name of the JSON in errors.

    Raises:
        InvalidRequest: it is not valid JSON, or not of that type.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{what} is not valid: {error}") from error


def from_base64(text: object, what: str) -> bytes:
    """The bytes of a base64 string, with or without its padding. Raises `InvalidRequest`."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{what} is not a string: an image in JSON is a base64 string")
    try:
        return binascii.a2b_base64(text + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:  # other characters among them
        raise InvalidRequest(f"{what} is not base64: {error}") from error


def numbers(values: object, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Numbers of nested JSON lists, as an array.

    Raises:
        InvalidRequest: ragged or too deeply nested lists, an item that is not a number, or a number
            that is too large for the type.
    """
    try:
        with np.errstate(over="raise"):
            array = np.asarray(values, dtype=dtype)
    except (ValueError, TypeError, OverflowError, FloatingPointError, RecursionError) as error:
        raise InvalidRequest(f"{what} cannot be read as {dtype.name}: {error}") from error
    if dtype.kind == "f" and np.isnan(array).any():  # NumPy makes it of null; JSON has none
        raise InvalidRequest(f"{what} cannot be read as {dtype.name}: null is not a number")
    return array
