"""TensorFlow Serving's REST API, so that its clients work unmodified.

Written after https://www.tensorflow.org/tfx/serving/api_rest. A model whose answer is one row has
one input and one output, so their names in a request do not matter; the others have all of them by
their names. An image is encoded, `{"b64": ...}`, and is decoded, resized and preprocessed here; or
numbers, which the model gets unchanged.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec
import numpy as np

from fingerpost.errors import ImageTooLarge, InvalidRequest, UnknownModel
from fingerpost.registry.http.app import json_response
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.protocols.classify import wrong_task
from fingerpost.worker.protocols.json_values import decode_json, from_base64, numbers
from fingerpost.worker.protocols.long_json import read_base64, read_json, read_numbers
from fingerpost.worker.protocols.named_values import NamedValues
from fingerpost.worker.protocols.tensors import (
    classify_all,
    each_row,
    scores_json,
    split_batch,
)
from fingerpost.worker.protocols.v2.tensors import run_items, stacked
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_tensor_headers
from fingerpost.worker.tasks.answer import datatype_of, lists_of
from fingerpost.worker.tasks.engine import TaskEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web
    from numpy.typing import NDArray

    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.long_json import LongJson
    from fingerpost.worker.protocols.tensors import Item, Scores
    from fingerpost.worker.repository.manager import ModelManager, ServedVersion
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Uploads
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

    T = TypeVar("T", bound="_Predict | _Classify")

__all__ = ["TensorFlowServingProtocol", "tensor_infos"]

_SIGNATURE: Final = "serving_default"
_FLOAT32: Final = np.dtype(np.float32)
_ABSENT: Final = msgspec.Raw()
_TF_TYPES: Final = {
    "BYTES": "DT_STRING",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
}
# A row of numbers of this length takes a millisecond.
_LONG_ROW_BYTES: Final = 1 << 13
# From here on numbers are written as JSON in a thread: a millisecond.
_MANY_NUMBERS: Final = 1 << 14


class _Predict(msgspec.Struct):
    signature_name: str = ""
    instances: msgspec.Raw = _ABSENT
    inputs: msgspec.Raw = _ABSENT


class _Classify(msgspec.Struct):
    examples: msgspec.Raw
    signature_name: str = ""


class TensorFlowServingProtocol:
    """Predict, classify, status and metadata; `add_to` makes the routes."""

    def __init__(
        self,
        manager: ModelManager,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        uploads: Uploads,
        turns: Turns,
    ) -> None:
        self._manager = manager
        self._config = config
        self._metrics = metrics
        self._uploads = uploads
        self._turns = turns
        self._values = NamedValues(config, turns)

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""

        def check(request: Request) -> None:
            check_tensor_headers(request, self._config)

        routes = ProtocolRoutes(context, "/v1/models", message_error)
        for chosen in ("", "/versions/{version}", "/labels/{alias}"):
            path = f"/v1/models/{{model}}{chosen}"
            routes.inference(f"{path}:predict", self._predict, check=check)
            routes.inference(f"{path}:classify", self._classify, check=check)
            routes.get(f"{path}/metadata", self._metadata)
            routes.get(path, self._status)

    async def _predict(self, request: Request, admitted: Admitted) -> bytes:
        """Answer rows (`instances`) by `predictions`, and columns (`inputs`) by `outputs`."""
        text, asked = await self._read(request, admitted, _Predict)
        if (asked.instances == _ABSENT) == (asked.inputs == _ABSENT):
            raise InvalidRequest("give exactly one of 'instances' (rows) and 'inputs' (columns)")
        if isinstance(admitted.served.engine, TaskEngine):
            return await self._named(admitted, admitted.served.engine, text, asked)
        if asked.inputs == _ABSENT:
            scores = await self._run(text, asked.instances, "instances", admitted)
            return b'{"predictions":%b}' % await scores_json(scores, self._turns)
        scores = await self._run(text, _column(text, asked.inputs), "inputs", admitted)
        return b'{"outputs":%b}' % await scores_json(scores, self._turns)

    async def _named(
        self, admitted: Admitted, engine: TaskEngine, text: LongJson, asked: _Predict
    ) -> bytes:
        """Answer a model of several inputs or outputs; a single output has no name."""
        inputs = engine.backend.inputs
        rows = asked.inputs == _ABSENT
        if rows:
            items = await self._values.rows(text, asked.instances, inputs, "instances")
        else:
            items = await self._values.columns(text, asked.inputs, inputs, "inputs")
        found = await run_items(admitted, engine, items, deadline=admitted.deadline)
        self._metrics.of(admitted.served.model).images.inc(len(items))
        if rows:
            written = [
                await self._members({name: np.asarray(a) for name, a in each.arrays.items()})
                for each in found
            ]
            return b'{"predictions":[%b]}' % b",".join(written)
        whole = {name: stacked(name, found) for name in found[0].arrays}
        return b'{"outputs":%b}' % await self._members(whole)

    async def _members(self, outputs: dict[str, NDArray[Any]]) -> bytes:
        """Outputs by their names, or the only one alone."""
        values = []
        for name, each in outputs.items():
            if each.size > _MANY_NUMBERS:  # a millisecond
                value = msgspec.json.encode(await asyncio.to_thread(lists_of, each))
                await self._turns.next()
            else:
                value = msgspec.json.encode(lists_of(each))
            values.append(value if len(outputs) == 1 else b"%b:%b" % (_name(name), value))
        return values[0] if len(outputs) == 1 else b"{%b}" % b",".join(values)

    async def _classify(self, request: Request, admitted: Admitted) -> bytes:
        """Answer each example, whose one feature is an image, by all labels with their scores."""
        served = admitted.served
        if served.task not in (Task.CLASSIFICATION, Task.MULTILABEL):
            raise wrong_task(served)
        text, asked = await self._read(request, admitted, _Classify)
        scores = await self._run(text, asked.examples, "examples", admitted)
        labels = served.labels
        rows = await each_row(
            scores,
            lambda row: msgspec.Raw(msgspec.json.encode(top_labels(row, labels, 0))),
            len(labels),
            self._turns,
        )
        return msgspec.json.encode({"result": rows})

    async def _read(
        self, request: Request, admitted: Admitted, kind: type[T]
    ) -> tuple[LongJson, T]:
        text = await read_json(
            await self._uploads.read_tensors(request, admitted),
            self._turns,
            max_images=self._config.batching.max_queue,
            what="the body",
        )
        asked = text.decode(kind, "the body")
        own = admitted.served.engine.signature
        if asked.signature_name not in ("", own or _SIGNATURE):
            raise InvalidRequest(
                f"signature_name {asked.signature_name[:100]!r} is not known: leave it out, or "
                f"{own or _SIGNATURE!r}"
            )
        return text, asked

    async def _run(
        self, text: LongJson, listed: msgspec.Raw, what: str, admitted: Admitted
    ) -> Scores:
        items = await self._items(text, listed, what)
        scores = await classify_all(
            admitted,
            items,
            deadline=admitted.deadline,
            name=lambda number: f"{what}[{number}]",
        )
        self._metrics.of(admitted.served.model).images.inc(len(items))
        return scores

    async def _items(self, text: LongJson, listed: msgspec.Raw, what: str) -> Sequence[Item]:
        """The images of a list: all of its numbers, or image by image."""
        max_images = self._config.batching.max_queue
        if (numbers_text := text.long(listed)) is not None:
            array = await self._read_numbers(numbers_text, what, axes=4)
            return await split_batch(array, self._config.images, what, max_images=max_images)
        rows = decode_json(listed, list[msgspec.Raw], what)
        if not rows:
            raise InvalidRequest(f"{what!r} is empty: give one image or more")
        if len(rows) > max_images:
            raise ImageTooLarge(
                f"{what!r} has {len(rows)} images, over the limit of {max_images}: "
                "send fewer at a time"
            )
        items = []
        for number, row in enumerate(rows):
            items.append(await self._item(text, row, f"{what}[{number}]"))
            if len(memoryview(row)) > _LONG_ROW_BYTES:
                await self._turns.next()
        return items

    async def _item(self, text: LongJson, row: msgspec.Raw, what: str) -> Item:
        if _is_object(row) and text.long(row) is None:
            named = decode_json(row, dict[str, msgspec.Raw], what)
            if "b64" not in named and len(named) == 1:
                (row,) = named.values()  # under the input's name
                named = decode_json(row, dict[str, msgspec.Raw], what) if _is_object(row) else {}
            if named.keys() == {"b64"}:
                return await self._image(text, named["b64"], what)
        if (numbers_text := text.long(row)) is not None:
            array = await self._read_numbers(numbers_text, what, axes=3)
        else:
            value = decode_json(row, object, what)
            if not isinstance(value, list):
                raise InvalidRequest(
                    f'{what} is neither an image, {{"b64": "..."}}, nor lists of numbers, '
                    "bare or under the name of the input"
                )
            array = _three_axes(numbers(value, _FLOAT32, what), what, axes=3)
        return (await split_batch(array, self._config.images, what, max_images=1))[0]

    async def _image(self, text: LongJson, value: msgspec.Raw, what: str) -> bytes | memoryview:
        if (base64_text := text.long(value)) is None:
            return from_base64(decode_json(value, object, what), what)
        limit = self._config.images.max_bytes
        return await read_base64(base64_text, what, self._turns, limit=limit)

    async def _read_numbers(self, text: memoryview, what: str, *, axes: int) -> NDArray[np.float32]:
        array = await read_numbers(text, _FLOAT32, what, self._turns)
        return _three_axes(array, what, axes=axes)

    async def _status(self, request: web.Request) -> web.Response:
        reference = model_reference(request, self._manager)
        statuses = self._manager.statuses(reference.model)
        version = reference.version
        if reference.alias is not None:
            version = self._version_of(reference.model, reference.alias)
        if version is not None:
            statuses = tuple(each for each in statuses if each.version == version)
        if not statuses:
            raise UnknownModel(f"{str(reference)!r} is not known here")
        return json_response({"model_version_status": [_status(each) for each in statuses]})

    def _version_of(self, model: str, alias: str) -> str:
        for info in self._manager.models():
            if info.name == model and alias in info.aliases:
                return info.aliases[alias]
        raise UnknownModel(f"model {model!r} has no alias {alias!r}")

    async def _metadata(self, request: web.Request) -> web.Response:
        with self._manager.acquire(model_reference(request, self._manager)) as served:
            model, version = served.model, served.version
            inputs, outputs = tensor_infos(served)
            name = served.engine.signature or _SIGNATURE
        signature = {
            "inputs": inputs,
            "outputs": outputs,
            "method_name": "tensorflow/serving/predict",
        }
        return json_response(
            {
                "model_spec": {"name": model, "signature_name": "", "version": version},
                "metadata": {"signature_def": {"signature_def": {name: signature}}},
            }
        )


def _column(text: LongJson, inputs: msgspec.Raw) -> msgspec.Raw:
    """The list of `inputs`; it may be the one member of an object, and one image is a list, too."""
    if not _is_object(inputs) or text.long(inputs) is not None:
        return inputs
    named = decode_json(inputs, dict[str, msgspec.Raw], "inputs")
    if "b64" not in named:
        if len(named) != 1:
            raise InvalidRequest(f"inputs names {len(named)} inputs: the model has one")
        (inputs,) = named.values()
        if not _is_object(inputs) or text.long(inputs) is not None:
            return inputs
    return msgspec.Raw(b"[%b]" % bytes(inputs))


def _three_axes(array: NDArray[Any], what: str, *, axes: int) -> NDArray[Any]:
    """Check the axes of an image, 3, or of a list of images, 4."""
    if array.ndim != axes:
        shape = list(array.shape if axes == 3 else array.shape[1:])
        raise InvalidRequest(f"{what} has shape {shape}: an image has three axes")
    return array


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"{"


def _name(name: str) -> bytes:
    return msgspec.json.encode(name)


def tensor_infos(served: ServedVersion) -> tuple[dict[str, Any], dict[str, Any]]:
    """The inputs and the outputs by their names."""
    if not isinstance(served.engine, TaskEngine):
        scores = _tensor_info("scores", "DT_FLOAT", [-1, served.width])
        return {"image": _tensor_info("image", "DT_STRING", [-1])}, {"scores": scores}
    backend = served.engine.backend
    inputs = {name: _tensor_info(name, "DT_STRING", [-1]) for name in backend.inputs.images}
    for name, spec in backend.inputs.numbers.items():
        sides = [-1 if side is None else side for side in (spec.shape or (None, None))[1:]]
        inputs[name] = _tensor_info(name, _tf_type(spec.dtype), [-1, *sides])
    outputs = {
        name: _tensor_info(name, _tf_type(dtype), [-1, *shape])
        for name, (dtype, shape) in backend.outputs.items()
    }
    return inputs, outputs


def _tf_type(dtype: np.dtype[Any] | str) -> str:
    """TensorFlow's name of a type of NumPy."""
    name = datatype_of(dtype)
    return _TF_TYPES.get(name) or f"DT_{name}"


def _status(status: VersionStatus) -> dict[str, object]:
    failed = status.state is VersionState.END and status.error
    return {
        "version": status.version,
        "state": status.state.value,
        "status": {"error_code": "UNKNOWN" if failed else "OK", "error_message": status.error},
        **({"digest": status.digest} if status.digest else {}),
    }


def _tensor_info(name: str, dtype: str, shape: list[int]) -> dict[str, object]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": f"{name}:0",
    }
