"""The answers to `POST /v1/infer/{model}`, as both ends read and write them.

An answer is JSON. With `Accept: application/octet-stream`, its arrays follow the JSON as bytes, in
the manner of the Open Inference Protocol's binary extension: the header
`Inference-Header-Content-Length` is the length of the JSON, each array is described in `outputs`
by name, datatype, shape and `binary_data_size`, and the bytes stand behind the JSON in that order,
little-endian, those of an element of `BYTES` after their length in 4 bytes.
"""

from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec

from fingerpost.client.wire import ErrorBody, Prediction, TimingsMs

__all__ = [
    "BINARY_TYPE",
    "DATATYPES",
    "HEADER_FIELD",
    "HEADER_LENGTH",
    "LENGTH",
    "InferAnswer",
    "InferredImage",
    "TensorHead",
    "TensorParameters",
]

BINARY_TYPE: Final = "application/octet-stream"
HEADER_LENGTH: Final = "Inference-Header-Content-Length"
# The same as the client reads it.
HEADER_FIELD: Final = HEADER_LENGTH.lower().encode()
# The protocol's names of numbers, and their codes in NumPy's and `array`'s style.
DATATYPES: Final = {
    "BOOL": "?",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "FP16": "f2",
    "FP32": "f4",
    "FP64": "f8",
}
# Before each element of `BYTES`.
LENGTH: Final = struct.Struct("<I")

_Size = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]
_Side = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class TensorParameters(msgspec.Struct, frozen=True, kw_only=True):
    """How many bytes behind the JSON are this array's."""

    binary_data_size: _Size


class TensorHead(msgspec.Struct, frozen=True, kw_only=True):
    """An array whose numbers follow the JSON."""

    name: str
    datatype: str
    shape: Annotated[tuple[_Side, ...], msgspec.Meta(max_length=16)]
    parameters: TensorParameters


class InferredImage(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome for one image, as the client reads it; which members it has says its task."""

    name: str
    predictions: tuple[Prediction, ...] = ()
    labels: tuple[str, ...] = ()
    width: _Side = 0
    height: _Side = 0
    orientation: Annotated[int, msgspec.Meta(ge=1, le=8)] = 1
    outputs: tuple[TensorHead, ...] = ()
    error: ErrorBody | None = None
    timings_ms: TimingsMs | None = None


class InferAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `POST /v1/infer/{model}`: one result for each image, in the order sent."""

    model: str
    version: str
    task: str
    results: tuple[InferredImage, ...]
