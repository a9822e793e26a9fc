"""Triton's system shared memory over gRPC: its calls, and the regions that inference uses."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.errors import InvalidRequest
from fingerpost.worker.grpc.schema.messages import message_class
from fingerpost.worker.protocols.v2.binary import MAX_NAME
from fingerpost.worker.protocols.v2.messages import (
    InferRequest,
    InputParameters,
    OutputParameters,
    RequestedInput,
    RequestedOutput,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.registry.grpc.call_head import CallHead
    from fingerpost.worker.protocols.v2.shared_memory import OutputRegions, SharedMemory
    from fingerpost.worker.serving.memory import Held

__all__ = ["GrpcSharedMemory"]

_REGION: Final = "shared_memory_region"
_SIZE: Final = "shared_memory_byte_size"
_OFFSET: Final = "shared_memory_offset"
_MOST: Final = (1 << 63) - 1
_NO_DATA: Final = msgspec.Raw()


class GrpcSharedMemory:
    """The regions of the worker, which clients of HTTP and of gRPC share.

    Args:
        shared: the regions, and the checks that HTTP has.
    """

    def __init__(self, shared: SharedMemory) -> None:
        self._shared = shared

    async def status(self, request: Any, head: CallHead) -> Any:
        """A region, or all of them."""
        response = message_class("inference.SystemSharedMemoryStatusResponse")()
        for each in self._shared.status(head, request.name):
            found = response.regions[str(each["name"])]
            for field, value in each.items():
                setattr(found, field, value)
        return response

    async def register(self, request: Any, head: CallHead) -> Any:
        """Register a region."""
        what = f"region {request.name[:MAX_NAME]!r}"
        offset, byte_size = (_checked(value, what) for value in (request.offset, request.byte_size))
        self._shared.register(head, request.name, request.key, offset, byte_size)
        return message_class("inference.SystemSharedMemoryRegisterResponse")()

    async def unregister(self, request: Any, head: CallHead) -> Any:
        """Forget a region, or all of them."""
        self._shared.unregister(head, request.name)
        return message_class("inference.SystemSharedMemoryUnregisterResponse")()

    async def inputs(self, request: Any, head: CallHead, held: Held) -> Mapping[int, memoryview]:
        """The bytes of those inputs that are in regions, as a copy, by their numbers.

        Raises:
            FingerpostError: see `SharedMemory.inputs`.
        """
        if not any(_REGION in each.parameters for each in request.inputs):
            return {}
        inputs = [
            RequestedInput(
                name=each.name,
                datatype=each.datatype,
                shape=_NO_DATA,
                parameters=InputParameters(**_place(each, "input")),
            )
            for each in request.inputs
        ]
        behind = memoryview(b"")
        return (await self._shared.inputs(head, InferRequest(inputs=inputs), behind, held)).shared

    @contextmanager
    def outputs(self, request: Any, head: CallHead) -> Iterator[OutputRegions]:
        """The regions of a request's outputs, which stay open inside the `with` block.

        Raises:
            FingerpostError: see `SharedMemory.outputs`.
        """
        outputs = []
        for each in request.outputs:
            count = each.parameters["classification"].int64_param if each.parameters else 0
            parameters = OutputParameters(**_place(each, "output"), classification=max(0, count))
            outputs.append(RequestedOutput(name=each.name, parameters=parameters))
        with self._shared.outputs(head, InferRequest(inputs=[], outputs=outputs)) as found:
            yield found


def _place(tensor: Any, kind: str) -> dict[str, Any]:
    """The region of an input or output, if it has one, and the place in it.

    Raises:
        InvalidRequest: one of them is of another type, or is negative.
    """
    parameters = tensor.parameters
    if _REGION not in parameters:
        return {}
    what = f"{kind} {tensor.name[:MAX_NAME]!r}"
    region = parameters[_REGION]
    if region.WhichOneof("parameter_choice") != "string_param":
        raise InvalidRequest(f"{what}: {_REGION} is not a text (string_param)")
    place: dict[str, Any] = {_REGION: region.string_param}
    for name in (_SIZE, _OFFSET):
        if name in parameters:
            choice = parameters[name].WhichOneof("parameter_choice")
            if choice not in ("int64_param", "uint64_param"):
                raise InvalidRequest(f"{what}: {name} is not a whole number (int64_param)")
            place[name] = _checked(getattr(parameters[name], choice), what)
    return place


def _checked(count: int, what: str) -> int:
    if not 0 <= count <= _MOST:
        raise InvalidRequest(f"{what}: {count} is not a number of bytes")
    return count
