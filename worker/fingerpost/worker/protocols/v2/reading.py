"""Reads the tensors of a request in the form of the Open Inference Protocol.

An input's numbers are JSON, or bytes behind the JSON. Long JSON is read in pieces, in between other
requests.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fingerpost.client.tasks.wire import HEADER_LENGTH
from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.json_values import decode_json, from_base64, numbers
from fingerpost.worker.protocols.long_json import read_base64, read_json, read_numbers
from fingerpost.worker.protocols.tensors import split_batch, split_items, tensor
from fingerpost.worker.protocols.v2.binary import (
    DTYPES,
    MAX_AXES,
    MAX_INPUTS,
    MAX_NAME,
    image_count,
    strings,
)
from fingerpost.worker.protocols.v2.messages import ABSENT, Count, InferRequest, RequestedInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.long_json import LongJson
    from fingerpost.worker.protocols.tensors import Item
    from fingerpost.worker.protocols.v2.shared_memory import InputBytes, SharedMemory
    from fingerpost.worker.serving.memory import Held
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.tasks.inputs import ModelInputs

__all__ = ["TensorReader", "header_length"]

# Eight numbers of 20 digits, with spaces.
_MAX_SHAPE_BYTES: Final = 256


class TensorReader:
    """Reads requests, and the items in them."""

    def __init__(self, config: WorkerConfig, turns: Turns, shared: SharedMemory) -> None:
        self._config = config
        self._shared = shared
        self._turns = turns

    async def named(
        self, text: LongJson, asked: InferRequest, binary: InputBytes, inputs: ModelInputs
    ) -> dict[str, Sequence[Item]]:
        """The items of each input of a request for a model of several.

        An input of as many axes as one item has is one item. `is_alone` tells that of a request.

        Raises:
            InvalidRequest: an input twice, too many of them, or data of another length than said.
        """
        if len(asked.inputs) > MAX_INPUTS:
            raise InvalidRequest(f"the request has more than {MAX_INPUTS} inputs")
        found: dict[str, Sequence[Item]] = {}
        axes = inputs.axes
        parts = binary.each(asked.inputs)
        for wanted in asked.inputs:
            what = f"input {wanted.name[:MAX_NAME]!r}"
            if wanted.name in found:
                raise InvalidRequest(f"{what} is in the request twice: send each input once")
            part = next(parts)
            if wanted.datatype == "BYTES":
                found[wanted.name] = await self.items(text, wanted, part, what)
                continue
            array = await self.array(text, wanted, part, what)
            alone = axes.get(wanted.name) == array.ndim
            found[wanted.name] = [array] if alone or not array.ndim else split_items(array)
        next(parts, None)  # checks that nothing is left
        return found

    def is_alone(self, asked: InferRequest, inputs: ModelInputs, text: LongJson) -> bool:
        """Whether a request is one item of a model without a batch, as that model has it."""
        if inputs.batched:
            return False
        axes = inputs.axes
        for wanted in asked.inputs:
            shape = _shape(text, wanted, f"input {wanted.name[:MAX_NAME]!r}")
            if len(shape) != (1 if wanted.datatype == "BYTES" else axes.get(wanted.name)):
                return False
        return True

    async def read(
        self, head: RequestHead, data: bytes | memoryview, json_bytes: int | None, held: Held
    ) -> tuple[LongJson, InferRequest, InputBytes]:
        """The JSON, the request in it, and the binary data behind it or in shared memory.

        Args:
            head: of the request.
            data: its body.
            json_bytes: how many bytes of it are the JSON; None for all.
            held: counts what is copied from shared memory.
        """
        view = memoryview(data)
        length = len(view) if json_bytes is None else json_bytes
        if length > len(view):
            raise InvalidRequest(
                f"{HEADER_LENGTH} is {length:,}, but the body has {len(view):,} bytes"
            )
        text = await read_json(
            view[:length],
            self._turns,
            max_images=self._config.batching.max_queue,
            what="the request",
        )
        asked = text.decode(InferRequest, "the request")
        return text, asked, await self._shared.inputs(head, asked, view[length:], held)

    async def items(
        self, text: LongJson, wanted: RequestedInput, binary: memoryview, what: str
    ) -> Sequence[Item]:
        """The images of an input, from its JSON data or from all binary data."""
        _check_source(wanted, binary, what)
        shape = _shape(text, wanted, what)
        max_images = self._config.batching.max_queue
        if wanted.datatype == "BYTES":
            return await self._images(text, wanted, shape, binary, what)
        array = await self.array(text, wanted, binary, what)
        return await split_batch(array, self._config.images, what, max_images=max_images)

    async def array(
        self, text: LongJson, wanted: RequestedInput, binary: memoryview, what: str
    ) -> NDArray[Any]:
        """The numbers of an input, from its JSON data or from its binary data."""
        size = _check_source(wanted, binary, what)
        shape = _shape(text, wanted, what)
        dtype = DTYPES.get(wanted.datatype)
        if dtype is None:
            raise InvalidRequest(
                f"{what} is {wanted.datatype[:20]!r}: use BYTES for encoded images, UINT8 for "
                f"pixels, or one of {', '.join(DTYPES)}"
            )
        if size is not None:
            array = tensor(binary, dtype, shape, what)
        else:
            if (listed := text.long(wanted.data)) is not None:
                array = await read_numbers(listed, dtype, what, self._turns)
            else:
                array = numbers(decode_json(wanted.data, list[Any], what), dtype, what)
            if array.size != prod(shape):
                raise InvalidRequest(f"{what} has {array.size:,} numbers, but its shape is {shape}")
            array = array.reshape(shape)
        return array

    async def _images(
        self,
        text: LongJson,
        wanted: RequestedInput,
        shape: list[int],
        binary: memoryview,
        what: str,
    ) -> Sequence[Item]:
        """The images of BYTES: base64 in JSON, flat or nested; else each after its length."""
        count = image_count(shape, what, most=self._config.batching.max_queue)
        if wanted.data == ABSENT:
            return strings(binary, count, what)
        rows = decode_json(wanted.data, list[msgspec.Raw], what)
        if len(rows) <= count:  # a row may have several, but not of [N] or [N, 1]
            rows = [
                each
                for row in rows
                for each in (decode_json(row, list[msgspec.Raw], what) if _is_list(row) else [row])
            ]
        if len(rows) != count:
            raise InvalidRequest(
                f"{what} has shape {shape}, but {len(rows):,} elements: encoded images are [N] or "
                "[N, 1]"
            )
        items: list[Item] = []
        limit = self._config.images.max_bytes
        for number, row in enumerate(rows):
            name = f"{what}, image {number}"
            if (long := text.long(row)) is not None:
                items.append(await read_base64(long, name, self._turns, limit=limit))
            else:
                items.append(from_base64(decode_json(row, object, name), name))
        return items


def header_length(request: RequestHead) -> int | None:
    """The length of the JSON before the binary data; None where the body is JSON alone."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequest(f"{HEADER_LENGTH}: {text!r} is not a length in bytes")
    return int(text)


def _shape(text: LongJson, wanted: RequestedInput, what: str) -> list[int]:
    """The shape of an input. Raises `InvalidRequest` for more than eight axes."""
    long = text.long(wanted.shape)
    if long is None and len(memoryview(wanted.shape)) <= _MAX_SHAPE_BYTES:
        shape = decode_json(wanted.shape, list[Count], f"the shape of {what}")
        if len(shape) <= MAX_AXES:
            return shape
    raise InvalidRequest(f"{what} has a shape of more than eight axes")


def _check_source(wanted: RequestedInput, binary: memoryview, what: str) -> int | None:
    """The bytes of an input's binary data; None where its data is JSON."""
    size = wanted.parameters.binary_data_size
    if wanted.parameters.shared_memory_region is not None:
        if size is not None or wanted.data != ABSENT:
            raise InvalidRequest(f"{what} has both a region of shared memory and data: send one")
        return len(binary)
    if (size is None) == (wanted.data == ABSENT):
        raise InvalidRequest(
            f"{what} needs exactly one of 'data', binary data ('binary_data_size') and a region of "
            "shared memory ('shared_memory_region')"
        )
    if len(binary) != (size or 0):
        raise InvalidRequest(
            f"{what} has binary_data_size {size or 0:,}, but {len(binary):,} bytes follow the JSON"
        )
    return size


def _is_list(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"["
