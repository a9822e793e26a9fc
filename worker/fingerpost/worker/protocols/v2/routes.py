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
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from fingerpost.client.tasks.wire import HEADER_LENGTH
from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.tensors import (
    classify_all,
    each_row,
    scores_json,
)
from fingerpost.worker.protocols.v2.binary import MAX_NAME, class_texts, pack_texts
from fingerpost.worker.protocols.v2.messages import (
    InferRequest,
    RequestedOutput,
)
from fingerpost.worker.protocols.v2.reading import TensorReader, header_length
from fingerpost.worker.protocols.v2.tensors import run_tensors, write_tensors
from fingerpost.worker.serving.errors import message_error
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_tensor_headers
from fingerpost.worker.tasks.engine import TaskEngine

if TYPE_CHECKING:
    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels
    from fingerpost.worker.protocols.long_json import LongJson
    from fingerpost.worker.protocols.tensors import Scores
    from fingerpost.worker.protocols.v2.shared_memory import (
        InputBytes,
        OutputRegions,
        SharedMemory,
    )
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.serving.fast_path import Answer
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Uploads
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["OpenInferenceProtocol"]


class OpenInferenceProtocol:
    """`POST .../infer`; `add_to` makes the route. For its other routes see `metadata`."""

    def __init__(
        self,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        uploads: Uploads,
        turns: Turns,
        shared: SharedMemory,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._turns = turns
        self._shared = shared
        self._uploads = uploads
        self._reader = TensorReader(config, turns, shared)

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""

        def check(request: Request) -> None:
            check_tensor_headers(request, self._config)
            header_length(request)

        routes = ProtocolRoutes(context, "/v2", message_error)
        for chosen in ("", "/versions/{version}"):
            path = f"/v2/models/{{model}}{chosen}/infer"
            routes.inference(path, self._infer, check=check)

    async def _infer(self, request: Request, admitted: Admitted) -> Answer:
        data = await self._uploads.read_tensors(request, admitted)
        text, asked, binary = await self._reader.read(
            request, data, header_length(request), admitted
        )
        with self._shared.outputs(request, asked) as places:
            engine = admitted.served.engine
            if isinstance(engine, TaskEngine):
                return await self._tensors(admitted, engine, text, asked, binary, places)
            return await self._scores(admitted, text, asked, binary, places)

    async def _scores(
        self,
        admitted: Admitted,
        text: LongJson,
        asked: InferRequest,
        binary: InputBytes,
        places: OutputRegions,
    ) -> Answer:
        """The scores of a classifier, whose input may have any name."""
        if len(asked.inputs) != 1:
            raise InvalidRequest(f"the request has {len(asked.inputs)} inputs: the model has one")
        (wanted,) = asked.inputs
        if len(wanted.name) > MAX_NAME or len(asked.id) > MAX_NAME:
            raise InvalidRequest(f"a name or an id has more than {MAX_NAME} characters")
        what = f"input {wanted.name!r}"
        items = await self._reader.items(text, wanted, binary.all, what)
        if not items:
            raise InvalidRequest(f"{what} is empty: give one image or more")
        deadline = _deadline(admitted, asked)
        served = admitted.served
        scores = await classify_all(
            admitted,
            items,
            deadline=deadline,
            name=lambda number: f"{what}, image {number}",
        )
        self._metrics.of(served.model).images.inc(len(items))
        head = _head(served, asked)
        return await _answer(head, asked, scores, served.labels, self._turns, places)

    async def _tensors(
        self,
        admitted: Admitted,
        engine: TaskEngine,
        text: LongJson,
        asked: InferRequest,
        binary: InputBytes,
        places: OutputRegions,
    ) -> Answer:
        """Every input and output of a model by its name."""
        inputs = await self._reader.named(text, asked, binary, engine.backend.inputs)
        outputs = await run_tensors(
            admitted,
            engine,
            inputs,
            deadline=_deadline(admitted, asked),
            most=self._config.batching.max_queue,
        )
        count = len(next(iter(inputs.values())))
        if count == 1 and self._reader.is_alone(asked, engine.backend.inputs, text):
            outputs = {name: each[0, ...] for name, each in outputs.items()}
        self._metrics.of(admitted.served.model).images.inc(count)
        wanted = asked.outputs or [RequestedOutput(name=name) for name in outputs]
        wishes = [
            (each.name, places.named(number) or _binary(each, asked))
            for number, each in enumerate(wanted)
        ]
        head = _head(admitted.served, asked)
        written, payloads = await write_tensors(outputs, wishes)
        return _response(head, written, await places.placed(written, wishes, payloads))


def _deadline(admitted: Admitted, asked: InferRequest) -> float:
    """By the loop's clock: the request's, or that of its `timeout`, if that is sooner."""
    if not asked.parameters.timeout:
        return admitted.deadline
    now = asyncio.get_running_loop().time()
    return min(admitted.deadline, now + asked.parameters.timeout / 1e6)  # microseconds, as Triton


def _head(served: ServedVersion, asked: InferRequest) -> dict[str, object]:
    head: dict[str, object] = {"model_name": served.model, "model_version": served.version}
    if asked.id:
        head["id"] = asked.id[:MAX_NAME]
    return head


def _binary(output: RequestedOutput, asked: InferRequest) -> bool:
    """Whether an output is wanted as bytes."""
    chosen = output.parameters.binary_data
    return asked.parameters.binary_data_output if chosen is None else chosen


def _response(
    head: dict[str, object], outputs: list[dict[str, object]], payloads: list[bytes]
) -> Answer:
    text = msgspec.json.encode({**head, "outputs": outputs})
    if not payloads:
        return text
    return web.Response(
        body=b"".join((text, *payloads)),
        content_type="application/octet-stream",
        headers={HEADER_LENGTH: str(len(text))},
    )


async def _answer(
    head: dict[str, object],
    asked: InferRequest,
    scores: Scores,
    labels: Labels,
    turns: Turns,
    places: OutputRegions,
) -> Answer:
    outputs: list[dict[str, object]] = []
    payloads: list[bytes] = []
    for number, output in enumerate(asked.outputs or [RequestedOutput(name="scores")]):
        wanted = output.parameters
        entry: dict[str, object] = {"name": output.name[:MAX_NAME]}
        placed = places.named(number)
        binary = placed or _binary(output, asked)
        data: object = None
        if wanted.classification:
            top = min(wanted.classification, len(labels))
            rows = await each_row(scores, partial(class_texts, labels=labels, top=top), top, turns)
            entry |= {"datatype": "BYTES", "shape": [len(rows), len(rows[0])]}
            texts = [text for row in rows for text in row]
            payload = b""
            if binary:
                payload = pack_texts(texts)
            else:
                data = [text.decode() for text in texts]
        else:
            entry |= {"datatype": "FP32", "shape": list(scores.shape)}
            payload = b""
            if binary:
                payload = scores.astype("<f4", copy=False).tobytes()
            else:
                data = msgspec.Raw(await scores_json(scores.ravel(), turns))
        if placed:
            entry["parameters"] = await places.write(number, payload)
        elif binary:
            entry["parameters"] = {"binary_data_size": len(payload)}
            payloads.append(payload)
        else:
            entry["data"] = data
        outputs.append(entry)
    return _response(head, outputs, payloads)
