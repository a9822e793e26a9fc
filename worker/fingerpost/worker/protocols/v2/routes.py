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
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np
from aiohttp import web

from fingerpost.errors import ImageTooLarge, InvalidRequest
from fingerpost.worker.protocols.long_lists import EMPTY, LONG_BYTES, cut_out, read_flat
from fingerpost.worker.protocols.tensors import (
    classify_all,
    decode_json,
    from_base64,
    numbers,
    split_batch,
    tensor,
)
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_tensor_headers, read_body

if TYPE_CHECKING:
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.protocols.tensors import Item, Scores
    from fingerpost.worker.serving.fast_path import Answer
    from fingerpost.worker.serving.routes import Admitted, RouteContext
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

_Count = Annotated[int, msgspec.Meta(ge=0)]


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
    shape: list[_Count]
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

    def __init__(self, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        self._config = config
        self._metrics = metrics

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
        body = await read_body(request, self._config, self._config.requests.max_bytes)
        asked, binary, flat = _split(body, _header_length(request))
        if len(asked.inputs) != 1:
            raise InvalidRequest(f"the request has {len(asked.inputs)} inputs: the model has one")
        (wanted,) = asked.inputs
        what = f"input {wanted.name!r}"
        items = await _items(wanted, binary, self._config.images, what, flat=flat)
        if not items:
            raise InvalidRequest(f"{what} is empty: give one image or more")
        max_images = self._config.batching.max_queue
        if len(items) > max_images:
            raise ImageTooLarge(
                f"{what} has {len(items)} images: send {max_images} at a time at most"
            )
        deadline = admitted.deadline
        if asked.parameters.timeout:  # microseconds, as Triton has it
            now = asyncio.get_running_loop().time()
            deadline = min(deadline, now + asked.parameters.timeout / 1e6)
        served = admitted.served
        scores = await classify_all(
            served,
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
        return _answer(head, asked, scores, served.labels)


def _header_length(request: web.Request) -> int | None:
    """The length of the JSON before the binary data; None where the body is JSON alone."""
    text = request.headers.get(_HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 12):
        raise InvalidRequest(f"{_HEADER_LENGTH}: {text!r} is not a length in bytes")
    return int(text)


def _split(body: bytes, header_length: int | None) -> tuple[_Request, memoryview, bool]:
    """The request, the binary data behind it, and whether its JSON data is a long flat list."""
    view = memoryview(body)
    length = len(view) if header_length is None else header_length
    if length > len(view):
        raise InvalidRequest(
            f"{_HEADER_LENGTH} is {length:,}, but the body has {len(view):,} bytes"
        )
    text, listed = cut_out(body[:length])
    asked = decode_json(text, _Request, "the request")
    if listed is None:
        return asked, view[length:], False
    for each in asked.inputs:
        if each.data == msgspec.Raw(EMPTY):
            each.data = msgspec.Raw(listed)
    return asked, view[length:], True


async def _items(
    wanted: _Input, binary: memoryview, config: ImageConfig, what: str, *, flat: bool
) -> list[Item]:
    """The images of an input, from its JSON data or from all binary data."""
    size = wanted.parameters.binary_data_size
    if (size is None) == (wanted.data == _ABSENT):
        raise InvalidRequest(
            f"{what} needs exactly one of 'data' and binary data ('binary_data_size'); shared "
            "memory is not supported"
        )
    if len(binary) != (size or 0):
        raise InvalidRequest(
            f"{what} has binary_data_size {size or 0:,}, but {len(binary):,} bytes follow the JSON"
        )
    if wanted.datatype == "BYTES":
        images = _strings(wanted, binary, what)
        if prod(wanted.shape) != len(images) or wanted.shape not in (
            [len(images)],
            [len(images), 1],
        ):
            raise InvalidRequest(
                f"{what} has shape {wanted.shape} and {len(images)} elements: encoded images are "
                "[N] or [N, 1]"
            )
        return images
    dtype = _DTYPES.get(wanted.datatype)
    if dtype is None:
        raise InvalidRequest(
            f"{what} is {wanted.datatype!r}: use BYTES for encoded images, UINT8 for pixels, or "
            f"one of {', '.join(_DTYPES)}"
        )
    if len(wanted.shape) > 4:
        raise InvalidRequest(f"{what} has shape {wanted.shape}: at most four axes")
    if size is not None:
        array = tensor(binary, dtype, wanted.shape, what)
    elif flat and len(memoryview(wanted.data)) > LONG_BYTES:
        count = prod(wanted.shape)
        array = (await read_flat(memoryview(wanted.data), dtype, count, what)).reshape(wanted.shape)
    else:
        array = numbers(decode_json(wanted.data, list[Any], what), dtype, what)
        if array.size != prod(wanted.shape):
            raise InvalidRequest(
                f"{what} has {array.size:,} numbers, but its shape is {wanted.shape}"
            )
        array = array.reshape(wanted.shape)
    return list(split_batch(array, config, what))


def _strings(wanted: _Input, binary: memoryview, what: str) -> list[Item]:
    """The images of BYTES: base64 in JSON, flat or nested; else each after its length, 4 bytes."""
    if wanted.data != _ABSENT:
        listed = decode_json(wanted.data, list[Any], what)
        flat = [each for row in listed for each in (row if isinstance(row, list) else [row])]
        return [from_base64(each, f"{what}, image {i}") for i, each in enumerate(flat)]
    found: list[Item] = []
    while binary:
        if len(binary) < _LENGTH.size:
            raise InvalidRequest(f"{what}, image {len(found)}: its length takes 4 bytes")
        (length,) = _LENGTH.unpack_from(binary)
        binary = binary[_LENGTH.size :]
        if length > len(binary):
            raise InvalidRequest(
                f"{what}, image {len(found)} claims {length:,} bytes; {len(binary):,} are left"
            )
        found.append(binary[:length])
        binary = binary[length:]
    return found


def _answer(head: dict[str, object], asked: _Request, scores: Scores, labels: Labels) -> Answer:
    outputs: list[dict[str, object]] = []
    payloads: list[bytes] = []
    for output in asked.outputs or [_Output(name="scores")]:
        wanted = output.parameters
        entry: dict[str, object] = {"name": output.name}
        binary = wanted.binary_data
        if binary is None:
            binary = asked.parameters.binary_data_output
        if wanted.classification:
            rows = _classes(scores, labels, wanted.classification)
            entry |= {"datatype": "BYTES", "shape": [len(rows), len(rows[0])]}
            texts = [text for row in rows for text in row]
            data: object = texts
            payload = b"".join(_LENGTH.pack(len(each)) + each for each in map(str.encode, texts))
        else:
            entry |= {"datatype": "FP32", "shape": list(scores.shape)}
            data = None if binary else scores.ravel().tolist()
            payload = scores.astype("<f4", copy=False).tobytes()
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


def _classes(scores: Scores, labels: Labels, top: int) -> list[list[str]]:
    """The best labels of each image as Triton writes them: `value:index:label`, best first."""
    return [[f"{row[i]:f}:{i}:{labels[i]}" for i in np.argsort(row)[::-1][:top]] for row in scores]
