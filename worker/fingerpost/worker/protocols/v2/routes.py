"""The Open Inference Protocol v2 with its binary extension, for an unmodified `tritonclient`.

Written after https://github.com/kserve/open-inference-protocol and Triton's extension for binary
tensors. A model has one input and one output, so an input may have any name, and an output that is
requested by another name than `scores` gets the scores under that name.

The input's forms: BYTES `[N]` or `[N, 1]` (encoded images; base64 strings where the data is JSON),
UINT8 `[N, height, width, channels]` (pixels of any size), and any other number (what the model
itself takes, converted to float32); without the axis `N` it is one image.
"""

from __future__ import annotations

import asyncio
import struct
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from aiohttp import web

from fingerpost.errors import ImageTooLarge, InvalidRequest
from fingerpost.worker.protocols.json_values import decode_json, from_base64, numbers
from fingerpost.worker.protocols.long_json import read_base64, read_json, read_numbers
from fingerpost.worker.protocols.tensors import (
    classify_all,
    each_row,
    scores_json,
    split_batch,
    tensor,
)
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_tensor_headers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.protocols.long_json import LongJson
    from fingerpost.worker.protocols.tensors import Item, Scores
    from fingerpost.worker.serving.fast_path import Answer
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Uploads
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["OpenInferenceProtocol"]

_HEADER_LENGTH: Final = "Inference-Header-Content-Length"
_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
}
_ABSENT: Final = msgspec.Raw()
_LENGTH: Final = struct.Struct("<I")
_MAX_AXES: Final = 4
# Four numbers of 20 digits, with spaces.
_MAX_SHAPE_BYTES: Final = 256
# Names and ids are repeated in answers and errors.
_MAX_NAME: Final = 255

# Larger numbers are in no request that is meant, and Python cannot divide them as floats.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _InputParameters(msgspec.Struct):
    binary_data_size: _Count | None = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: _Count = 0


class _Parameters(msgspec.Struct):
    binary_data_output: bool = False
    timeout: _Count = 0


class _Input(msgspec.Struct):
    name: str
    datatype: str
    shape: msgspec.Raw
    data: msgspec.Raw = _ABSENT
    parameters: _InputParameters = msgspec.field(default_factory=_InputParameters)


class _Output(msgspec.Struct):
    name: str
    parameters: _OutputParameters = msgspec.field(default_factory=_OutputParameters)


class _Request(msgspec.Struct):
    inputs: list[_Input]
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=16)] = []
    id: str = ""
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


class OpenInferenceProtocol:
    """`POST .../infer`; `add_to` makes the route. For its other routes see `metadata`."""

    def __init__(
        self, config: WorkerConfig, metrics: WorkerMetrics, uploads: Uploads, turns: Turns
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._uploads = uploads
        self._turns = turns

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""

        def check(request: web.Request) -> None:
            check_tensor_headers(request, self._config)
            _header_length(request)

        routes = ProtocolRoutes(context, "/v2", message_error)
        for chosen in ("", "/versions/{version}"):
            path = f"/v2/models/{{model}}{chosen}/infer"
            routes.inference(path, self._infer, check=check)

    async def _infer(self, request: web.Request, admitted: Admitted) -> Answer:
        text, asked, binary = await self._read(request, admitted)
        if len(asked.inputs) != 1:
            raise InvalidRequest(f"the request has {len(asked.inputs)} inputs: the model has one")
        (wanted,) = asked.inputs
        if len(wanted.name) > _MAX_NAME or len(asked.id) > _MAX_NAME:
            raise InvalidRequest(f"a name or an id has more than {_MAX_NAME} characters")
        what = f"input {wanted.name!r}"
        items = await self._items(text, wanted, binary, what)
        if not items:
            raise InvalidRequest(f"{what} is empty: give one image or more")
        deadline = admitted.deadline
        if asked.parameters.timeout:  # microseconds, as Triton has it
            now = asyncio.get_running_loop().time()
            deadline = min(deadline, now + asked.parameters.timeout / 1e6)
        served = admitted.served
        scores = await classify_all(
            admitted,
            items,
            deadline=deadline,
            name=lambda number: f"{what}, image {number}",
        )
        self._metrics.of(served.model).images.inc(len(items))
        head: dict[str, object] = {
            "model_name": served.model,
            "model_version": served.version,
        }
        if asked.id:
            head["id"] = asked.id
        return await _answer(head, asked, scores, served.labels, self._turns)

    async def _read(
        self, request: web.Request, admitted: Admitted
    ) -> tuple[LongJson, _Request, memoryview]:
        """The JSON, the request in it, and the binary data behind it."""
        view = memoryview(await self._uploads.read_tensors(request, admitted))
        header_length = _header_length(request)
        length = len(view) if header_length is None else header_length
        if length > len(view):
            raise InvalidRequest(
                f"{_HEADER_LENGTH} is {length:,}, but the body has {len(view):,} bytes"
            )
        text = await read_json(
            view[:length],
            self._turns,
            max_images=self._config.batching.max_queue,
            what="the request",
        )
        return text, text.decode(_Request, "the request"), view[length:]

    async def _items(
        self, text: LongJson, wanted: _Input, binary: memoryview, what: str
    ) -> Sequence[Item]:
        """The images of an input, from its JSON data or from all binary data."""
        size = wanted.parameters.binary_data_size
        if (size is None) == (wanted.data == _ABSENT):
            raise InvalidRequest(
                f"{what} needs exactly one of 'data' and binary data ('binary_data_size'); shared "
                "memory is not supported"
            )
        if len(binary) != (size or 0):
            raise InvalidRequest(
                f"{what} has binary_data_size {size or 0:,}, but {len(binary):,} bytes follow the "
                "JSON"
            )
        shape = _shape(text, wanted, what)
        max_images = self._config.batching.max_queue
        if wanted.datatype == "BYTES":
            return await self._images(text, wanted, shape, binary, what)
        dtype = _DTYPES.get(wanted.datatype)
        if dtype is None:
            raise InvalidRequest(
                f"{what} is {wanted.datatype[:20]!r}: use BYTES for encoded images, UINT8 for "
                f"pixels, or one of {', '.join(_DTYPES)}"
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
        return await split_batch(array, self._config.images, what, max_images=max_images)

    async def _images(
        self, text: LongJson, wanted: _Input, shape: list[int], binary: memoryview, what: str
    ) -> Sequence[Item]:
        """The images of BYTES: base64 in JSON, flat or nested; else each after its length."""
        max_images = self._config.batching.max_queue
        if len(shape) not in (1, 2) or shape[1:] not in ([], [1]):
            raise InvalidRequest(f"{what} has shape {shape}: encoded images are [N] or [N, 1]")
        count = shape[0]
        if count > max_images:
            raise ImageTooLarge(f"{what} has {count:,} images: send {max_images} at a time at most")
        if wanted.data == _ABSENT:
            return _strings(binary, count, what)
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


def _header_length(request: web.Request) -> int | None:
    """The length of the JSON before the binary data; None where the body is JSON alone."""
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequest(f"{_HEADER_LENGTH}: {text!r} is not a length in bytes")
    return int(text)


def _shape(text: LongJson, wanted: _Input, what: str) -> list[int]:
    """The shape of an input. Raises `InvalidRequest` for more than four axes."""
    long = text.long(wanted.shape)
    if long is None and len(memoryview(wanted.shape)) <= _MAX_SHAPE_BYTES:
        shape = decode_json(wanted.shape, list[_Count], f"the shape of {what}")
        if len(shape) <= _MAX_AXES:
            return shape
    raise InvalidRequest(f"{what} has a shape of more than four axes: an image has three")


def _is_list(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"["


def _strings(binary: memoryview, count: int, what: str) -> list[Item]:
    """The images of binary BYTES, each after its length in 4 bytes."""
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


async def _answer(
    head: dict[str, object], asked: _Request, scores: Scores, labels: Labels, turns: Turns
) -> Answer:
    outputs: list[dict[str, object]] = []
    payloads: list[bytes] = []
    for output in asked.outputs or [_Output(name="scores")]:
        wanted = output.parameters
        entry: dict[str, object] = {"name": output.name[:_MAX_NAME]}
        binary = wanted.binary_data
        if binary is None:
            binary = asked.parameters.binary_data_output
        data: object = None
        if wanted.classification:
            top = min(wanted.classification, len(labels))
            rows = await each_row(scores, partial(_classes, labels=labels, top=top), top, turns)
            entry |= {"datatype": "BYTES", "shape": [len(rows), len(rows[0])]}
            texts = [text for row in rows for text in row]
            payload = b""
            if binary:
                payload = b"".join(_LENGTH.pack(len(text)) + text for text in texts)
            else:
                data = [text.decode() for text in texts]
        else:
            entry |= {"datatype": "FP32", "shape": list(scores.shape)}
            payload = b""
            if binary:
                payload = scores.astype("<f4", copy=False).tobytes()
            else:
                data = msgspec.Raw(await scores_json(scores.ravel(), turns))
        if binary:
            entry["parameters"] = {"binary_data_size": len(payload)}
            payloads.append(payload)
        else:
            entry["data"] = data
        outputs.append(entry)
    text = msgspec.json.encode({**head, "outputs": outputs})
    if not payloads:
        return text
    return web.Response(
        body=b"".join((text, *payloads)),
        content_type="application/octet-stream",
        headers={_HEADER_LENGTH: str(len(text))},
    )


def _classes(row: NDArray[np.float32], *, labels: Labels, top: int) -> list[bytes]:
    """The best labels of an image as Triton writes them: `value:index:label`, best first."""
    return [f"{row[i]:f}:{i}:{labels[i]}".encode() for i in np.argsort(row)[::-1][:top]]
