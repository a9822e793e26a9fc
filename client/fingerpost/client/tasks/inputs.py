"""Several inputs for one item, as the body of a request: the Open Inference Protocol's binary form.

An image (a path, encoded bytes, a file object, a PIL image) is sent encoded, as BYTES. An array is
sent with its own type, and lists of numbers as INT64 or FP64: the worker converts them to what the
model takes. NumPy is not needed.
"""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import msgspec

from fingerpost.client.images.load import load_image
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.tasks.wire import DATATYPES, LENGTH
from fingerpost.errors import DeadlineExceeded, ImageError, InvalidRequest

if TYPE_CHECKING:
    from fingerpost.client.images.load import ImageSource

__all__ = ["InferSource", "InputValue", "NamedInputs", "load_inputs"]

InputValue: TypeAlias = "ImageSource | float | Sequence[Any]"
"""One input: an image, an array of any type, a number, or numbers in lists."""
InferSource: TypeAlias = "ImageSource | Mapping[str, InputValue]"
"""What `Client.infer` takes: an image, or each input of the model by its name."""

# `typestr` of NumPy's array interface, without its byte order.
_TYPES: Final = {("b1" if code == "?" else code): name for name, code in DATATYPES.items()}
_MAX_AXES: Final = 8


class NamedInputs(NamedTuple):
    """The body of a request: the JSON of `head_bytes` bytes, and the arrays behind it."""

    body: bytes
    head_bytes: int


async def load_inputs(inputs: Mapping[str, InputValue], timeout_s: float) -> NamedInputs:
    """Read the inputs of one item.

    Args:
        inputs: by the names that the model has.
        timeout_s: seconds.

    Raises:
        InvalidRequest: a value that is not an image and has no numbers, or ragged lists.
        ImageError: an image cannot be read; see `load_image`.
        DeadlineExceeded: they were not read in time.
    """
    if not inputs:
        raise InvalidRequest("no inputs: give each input of the model by its name")
    heads, blobs = [], []
    try:
        async with asyncio.timeout(timeout_s):
            for name, value in inputs.items():
                if not isinstance(name, str):
                    raise InvalidRequest(f"{name!r} is not the name of an input: use a text")
                datatype, shape, blob = await _tensor(name, value)
                heads.append(
                    {
                        "name": name,
                        "datatype": datatype,
                        "shape": [1, *shape],
                        "parameters": {"binary_data_size": len(blob)},
                    }
                )
                blobs.append(blob)
    except TimeoutError:
        raise DeadlineExceeded(f"the inputs were not read within {timeout_s:g} s") from None
    head = msgspec.json.encode({"inputs": heads})
    return NamedInputs(b"".join((head, *blobs)), len(head))


async def _tensor(name: str, value: Any) -> tuple[str, list[int], bytes]:
    """Datatype, shape and bytes of an input."""
    if isinstance(value, bool | int | float | list | tuple):
        return _numbers(name, value)
    if hasattr(value, "__array_interface__") and not _is_pil(value):
        return _array(name, value)
    if not (
        isinstance(value, str | os.PathLike | bytes | bytearray | memoryview)
        or hasattr(value, "read")
        or _is_pil(value)
    ):
        raise InvalidRequest(
            f"input {name!r} is {type(value).__name__}: give an image (a path, bytes, a file "
            "object, a PIL image), an array, a number, or lists of numbers"
        )
    data = await load_image(value)
    if isinstance(data, OneShot):
        raise ImageError(f"input {name!r} can be read only once: read it, and give its bytes")
    return "BYTES", [], LENGTH.pack(len(data)) + data


def _array(name: str, value: Any) -> tuple[str, list[int], bytes]:
    """An array of NumPy, or of another library with its interface and `tobytes`."""
    interface = value.__array_interface__
    kind = interface["typestr"]
    datatype = _TYPES.get(kind[1:])
    if datatype is None or not hasattr(value, "tobytes"):
        raise InvalidRequest(
            f"input {name!r} is an array of type {kind!r}: use numbers of at most 8 bytes"
        )
    if kind[0] == ">" or (kind[0] == "=" and sys.byteorder == "big"):
        value = value.astype(f"<{kind[1:]}")
    return datatype, list(interface["shape"]), value.tobytes()


def _numbers(name: str, value: Any) -> tuple[str, list[int], bytes]:
    shape: list[int] = []
    flat = [value]
    while isinstance(flat[0] if flat else None, list | tuple):
        lengths = {len(each) if isinstance(each, list | tuple) else -1 for each in flat}
        if len(lengths) != 1 or len(shape) == _MAX_AXES:
            raise InvalidRequest(f"input {name!r} is ragged: its lists have different lengths")
        shape.append(lengths.pop())
        flat = list(chain.from_iterable(flat))
    if not all(isinstance(each, bool | int | float) for each in flat):
        raise InvalidRequest(f"input {name!r} has something else than numbers in its lists")
    whole = all(isinstance(each, int) for each in flat)
    try:
        data = struct.pack(f"<{len(flat)}{'q' if whole else 'd'}", *flat)
    except (struct.error, OverflowError) as error:
        raise InvalidRequest(f"input {name!r} has a number of more than 64 bits") from error
    return "INT64" if whole else "FP64", shape, data


def _is_pil(value: Any) -> bool:
    # A program that has a PIL image has imported PIL already.
    pil = sys.modules.get("PIL.Image")
    return pil is not None and isinstance(value, pil.Image)
