"""TensorFlow Serving's REST API, so that its clients work unmodified.

Written after https://www.tensorflow.org/tfx/serving/api_rest. A model has one input and one output,
so their names in a request do not matter. The input is encoded images, `{"b64": ...}`, which are
decoded, resized and preprocessed here; or numbers, which the model gets unchanged, as float32.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from fingerpost.errors import ImageTooLarge, InvalidRequest, UnknownModel
from fingerpost.registry.http_server import json_response
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.models.status import VersionState, VersionStatus
from fingerpost.worker.protocols.tensors import (
    classify_all,
    decode_json,
    from_base64,
    numbers,
    split_batch,
)
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.reference import model_reference
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_tensor_headers, read_body

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.tensors import Item, Scores
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["TensorFlowServingProtocol"]

_SIGNATURE: Final = "serving_default"
_FLOAT32: Final = np.dtype(np.float32)
_ABSENT: Final = msgspec.Raw()


class _Predict(msgspec.Struct):
    signature_name: str = ""
    instances: list[msgspec.Raw] | None = None
    inputs: msgspec.Raw = _ABSENT


class _Classify(msgspec.Struct):
    examples: list[msgspec.Raw]
    signature_name: str = ""


class TensorFlowServingProtocol:
    """Predict, classify, status and metadata; `add_to` makes the routes."""

    def __init__(self, manager: ModelManager, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        self._manager = manager
        self._config = config
        self._metrics = metrics

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""

        def check(request: web.Request) -> None:
            check_tensor_headers(request, self._config)

        routes = ProtocolRoutes(context, "/v1/models", message_error)
        for chosen in ("", "/versions/{version}", "/labels/{alias}"):
            path = f"/v1/models/{{model}}{chosen}"
            routes.inference(f"{path}:predict", self._predict, check=check)
            routes.inference(f"{path}:classify", self._classify, check=check)
            routes.get(f"{path}/metadata", self._metadata)
            routes.get(path, self._status)

    async def _predict(self, request: web.Request, admitted: Admitted) -> bytes:
        """Answer rows (`instances`) by `predictions`, and columns (`inputs`) by `outputs`."""
        body = await read_body(request, self._config, self._config.requests.max_bytes)
        asked = decode_json(body, _Predict, "the body")
        _check_signature(asked.signature_name)
        if (asked.instances is None) == (asked.inputs == _ABSENT):
            raise InvalidRequest("give exactly one of 'instances' (rows) and 'inputs' (columns)")
        if asked.instances is not None:
            scores = await self._run(asked.instances, "instances", admitted)
            return msgspec.json.encode({"predictions": scores.tolist()})
        scores = await self._run(_column(asked.inputs), "inputs", admitted)
        return msgspec.json.encode({"outputs": scores.tolist()})

    async def _classify(self, request: web.Request, admitted: Admitted) -> bytes:
        """Answer each example, whose one feature is an image, by all labels with their scores."""
        body = await read_body(request, self._config, self._config.requests.max_bytes)
        asked = decode_json(body, _Classify, "the body")
        _check_signature(asked.signature_name)
        scores = await self._run(asked.examples, "examples", admitted)
        labels = admitted.served.labels
        return msgspec.json.encode({"result": [top_labels(row, labels, 0) for row in scores]})

    async def _run(self, rows: list[msgspec.Raw], what: str, admitted: Admitted) -> Scores:
        if not rows:
            raise InvalidRequest(f"{what!r} is empty: give one image or more")
        max_images = self._config.batching.max_queue
        if len(rows) > max_images:
            raise ImageTooLarge(
                f"{what!r} has {len(rows)} images, over the limit of {max_images}: "
                "send fewer at a time"
            )
        items = []
        for number, row in enumerate(rows):
            items.append(self._item(row, f"{what}[{number}]"))
            await asyncio.sleep(0)  # lists of numbers take milliseconds each
        scores = await classify_all(
            admitted.served,
            items,
            deadline=admitted.deadline,
            name=lambda number: f"{what}[{number}]",
        )
        self._metrics.of(admitted.served.model).images.inc(len(items))
        return scores

    def _item(self, row: msgspec.Raw, what: str) -> Item:
        value = decode_json(row, object, what)
        if isinstance(value, dict) and "b64" not in value and len(value) == 1:
            (value,) = value.values()  # under the input's name
        if isinstance(value, dict) and value.keys() == {"b64"}:
            return from_base64(value["b64"], what)
        if not isinstance(value, list):
            raise InvalidRequest(
                f'{what} is neither an image, {{"b64": "..."}}, nor lists of numbers, '
                "bare or under the name of the input"
            )
        array = numbers(value, _FLOAT32, what)
        if array.ndim != 3:
            raise InvalidRequest(f"{what} has shape {list(array.shape)}: an image has three axes")
        return split_batch(array, self._config.images, what)[0]

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
            classes = len(served.labels)
            model, version = served.model, served.version
        signature = {
            "inputs": {"image": _tensor_info("image", "DT_STRING", [-1])},
            "outputs": {"scores": _tensor_info("scores", "DT_FLOAT", [-1, classes])},
            "method_name": "tensorflow/serving/predict",
        }
        return json_response(
            {
                "model_spec": {"name": model, "signature_name": "", "version": version},
                "metadata": {"signature_def": {"signature_def": {_SIGNATURE: signature}}},
            }
        )


def _column(inputs: msgspec.Raw) -> list[msgspec.Raw]:
    """The items of `inputs`: a list, or an object with a list (or an image) as its one member."""
    if not _is_object(inputs):
        return decode_json(inputs, list[msgspec.Raw], "inputs")
    named = decode_json(inputs, dict[str, msgspec.Raw], "inputs")
    if "b64" in named:
        return [inputs]
    if len(named) != 1:
        raise InvalidRequest(f"inputs names {len(named)} inputs: the model has one")
    (inputs,) = named.values()
    return [inputs] if _is_object(inputs) else _column(inputs)


def _is_object(value: msgspec.Raw) -> bool:
    return bytes(memoryview(value)[:1]) == b"{"


def _check_signature(name: str) -> None:
    if name not in ("", _SIGNATURE):
        raise InvalidRequest(
            f"signature_name {name!r} is not known: leave it out, or {_SIGNATURE!r}"
        )


def _status(status: VersionStatus) -> dict[str, object]:
    failed = status.state is VersionState.END and status.error
    return {
        "version": status.version,
        "state": status.state.value,
        "status": {"error_code": "UNKNOWN" if failed else "OK", "error_message": status.error},
    }


def _tensor_info(name: str, dtype: str, shape: list[int]) -> dict[str, object]:
    dims = [{"size": str(size), "name": ""} for size in shape]
    return {
        "dtype": dtype,
        "tensor_shape": {"dim": dims, "unknown_rank": False},
        "name": f"{name}:0",
    }
