"""What the Open Inference Protocol has in common over HTTP and gRPC: binary tensors and classes."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.client.tasks.wire import DATATYPES
from fingerpost.errors import ImageTooLarge, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.protocols.tensors import Item

__all__ = [
    "DTYPES",
    "MAX_AXES",
    "MAX_INPUTS",
    "MAX_NAME",
    "class_texts",
    "image_count",
    "pack_texts",
    "strings",
]

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    name: np.dtype(code if code in "?i1u1" else f"<{code}") for name, code in DATATYPES.items()
}
MAX_AXES: Final = 8
MAX_INPUTS: Final = 64
# Names and ids are repeated in answers and errors.
MAX_NAME: Final = 255
_LENGTH: Final = struct.Struct("<I")


def image_count(shape: Sequence[int], what: str, *, most: int) -> int:
    """The images of an input of BYTES, by its shape.

    Raises:
        InvalidRequest: another shape than `[N]` or `[N, 1]`.
        ImageTooLarge: more images than `most`.
    """
    if len(shape) not in (1, 2) or list(shape[1:]) not in ([], [1]):
        raise InvalidRequest(f"{what} has shape {list(shape)}: encoded images are [N] or [N, 1]")
    if shape[0] > most:
        raise ImageTooLarge(f"{what} has {shape[0]:,} images: send {most} at a time at most")
    return shape[0]


def strings(binary: memoryview, count: int, what: str) -> list[Item]:
    """The images of binary BYTES, each after its length in 4 bytes.

    Raises:
        InvalidRequest: a length beyond the end, or bytes that are left.
    """
    found: list[Item] = []
    for number in range(count):
        if len(binary) < _LENGTH.size:
            raise InvalidRequest(f"{what}, image {number}: its length takes 4 bytes")
        (length,) = _LENGTH.unpack_from(binary)
        binary = binary[_LENGTH.size :]
        if length > len(binary):
            raise InvalidRequest(
                f"{what}, image {number} claims {length:,} bytes; {len(binary):,} are left"
            )
        found.append(binary[:length])
        binary = binary[length:]
    if binary:
        raise InvalidRequest(f"{what} has {len(binary):,} bytes after its {count:,} images")
    return found


def class_texts(row: NDArray[np.float32], *, labels: Labels, top: int) -> list[bytes]:
    """The best labels of an image as Triton writes them: `value:index:label`, best first."""
    return [f"{row[i]:f}:{i}:{labels[i]}".encode() for i in np.argsort(row)[::-1][:top]]


def pack_texts(texts: Sequence[bytes]) -> bytes:
    """Texts as binary BYTES, each after its length."""
    return b"".join(_LENGTH.pack(len(text)) + text for text in texts)
