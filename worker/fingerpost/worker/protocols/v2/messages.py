"""The messages of the Open Inference Protocol's inference, as they are read."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

__all__ = [
    "ABSENT",
    "Count",
    "InferRequest",
    "InputParameters",
    "OutputParameters",
    "Parameters",
    "RequestedInput",
    "RequestedOutput",
]

ABSENT: Final = msgspec.Raw()

# Larger numbers are in no request that is meant, and Python cannot divide them as floats.
Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class InputParameters(msgspec.Struct):
    """How the data of an input is sent."""

    binary_data_size: Count | None = None
    shared_memory_region: str | None = None
    shared_memory_byte_size: Count = 0
    shared_memory_offset: Count = 0


class OutputParameters(msgspec.Struct):
    """In which form an output is wanted."""

    binary_data: bool | None = None
    classification: Count = 0
    shared_memory_region: str | None = None
    shared_memory_byte_size: Count = 0
    shared_memory_offset: Count = 0


class Parameters(msgspec.Struct):
    """What holds for a whole request; `timeout` is in microseconds."""

    binary_data_output: bool = False
    timeout: Count = 0


class RequestedInput(msgspec.Struct):
    """A tensor that is sent."""

    name: str
    datatype: str
    shape: msgspec.Raw
    data: msgspec.Raw = ABSENT
    parameters: InputParameters = msgspec.field(default_factory=InputParameters)


class RequestedOutput(msgspec.Struct):
    """A tensor that is wanted."""

    name: str
    parameters: OutputParameters = msgspec.field(default_factory=OutputParameters)


class InferRequest(msgspec.Struct):
    """The JSON of `POST .../infer`."""

    inputs: list[RequestedInput]
    outputs: Annotated[list[RequestedOutput], msgspec.Meta(max_length=16)] = []
    id: str = ""
    parameters: Parameters = msgspec.field(default_factory=Parameters)
