"""TensorFlow's tensors without TensorFlow: `TensorProto` to arrays and images, and back.

A tensor's numbers are in `tensor_content`, as bytes, or in the field of its type, one for each.
TensorFlow also takes fewer numbers than the shape has, and repeats the last one; that is refused
here, because a message of 20 bytes could then become any size.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.grpc.tensors import check_shape, read_list
from fingerpost.worker.protocols.tensors import tensor
from fingerpost.worker.protocols.v2.binary import image_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.grpc.tensors import Tensor
    from fingerpost.worker.serving.turns import Turns

__all__ = ["read_tensor_proto", "write_tensor_proto"]

# By number of TensorFlow's `DataType`: the type of NumPy, and the field of the numbers.
_TYPES: Final[dict[int, tuple[np.dtype[Any], str]]] = {
    1: (np.dtype("<f4"), "float_val"),
    2: (np.dtype("<f8"), "double_val"),
    3: (np.dtype("<i4"), "int_val"),
    4: (np.dtype("u1"), "int_val"),
    5: (np.dtype("<i2"), "int_val"),
    6: (np.dtype("i1"), "int_val"),
    9: (np.dtype("<i8"), "int64_val"),
    10: (np.dtype("?"), "bool_val"),
    17: (np.dtype("<u2"), "int_val"),
    19: (np.dtype("<f2"), "half_val"),
    22: (np.dtype("<u4"), "uint32_val"),
    23: (np.dtype("<u8"), "uint64_val"),
}
_HALF: Final = 19
_STRING: Final = 7
_NUMBERS: Final = {dtype: number for number, (dtype, _) in _TYPES.items()}
# Numbers that are written at a time: a millisecond.
_AT_A_TIME: Final = 1 << 15


async def read_tensor_proto(
    proto: Any, what: str, turns: Turns, *, max_images: int
) -> tuple[Tensor, list[int]]:
    """The images or the numbers of a tensor, and its shape.

    Raises:
        InvalidRequest: a type that is not read, a shape that is not known, or as many elements as
            it does not have.
        ImageTooLarge: more images than `max_images`.
    """
    if proto.tensor_shape.unknown_rank:
        raise InvalidRequest(f"{what} has no shape: give it one")
    shape = check_shape([each.size for each in proto.tensor_shape.dim[:9]], what)
    if proto.dtype == _STRING:
        count = image_count(shape or [1], what, most=max_images)
        if len(proto.string_val) != count:
            raise InvalidRequest(
                f"{what} has shape {shape}, but {len(proto.string_val):,} elements in string_val"
            )
        return list(proto.string_val), shape
    known = _TYPES.get(proto.dtype)
    if known is None:
        raise InvalidRequest(
            f"{what} is of type {proto.dtype} of TensorFlow: use DT_STRING for encoded images, "
            "DT_UINT8 for pixels, or another type of numbers"
        )
    dtype, field = known
    if proto.tensor_content:
        return tensor(memoryview(proto.tensor_content), dtype, shape, what), shape
    values = getattr(proto, field)
    if len(values) != prod(shape):
        raise InvalidRequest(
            f"{what} has {len(values):,} numbers in {field}, but its shape is {shape}"
        )
    if proto.dtype == _HALF:  # the bits of each
        bits = await read_list(values, np.dtype("<u2"), what, turns)
        return bits.view(dtype).reshape(shape), shape
    return (await read_list(values, dtype, what, turns)).reshape(shape), shape


async def write_tensor_proto(array: NDArray[Any], turns: Turns) -> Any:
    """A tensor with its numbers in the field of its type, where clients look for them."""
    proto = message_class("tensorflow.TensorProto")()
    for side in array.shape:
        proto.tensor_shape.dim.add(size=side)
    if array.dtype == object or array.dtype.kind in "SU":
        proto.dtype = _STRING
        proto.string_val.extend(
            each if isinstance(each, bytes) else str(each).encode() for each in array.ravel()
        )
        return proto
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    proto.dtype = _NUMBERS[little.dtype]
    field = getattr(proto, _TYPES[proto.dtype][1])
    flat = little.ravel()
    if proto.dtype == _HALF:
        flat = flat.view("<u2")
    for start in range(0, flat.size, _AT_A_TIME):
        if start:
            await turns.next()
        field.extend(flat[start : start + _AT_A_TIME].tolist())
    return proto
