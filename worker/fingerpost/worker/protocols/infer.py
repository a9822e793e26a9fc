"""`POST /v1/infer/{model}`: items in, the answers of any task out, as JSON or with binary arrays.

A model of many numbers (`_BINARY`) answers with binary arrays unless JSON is accepted by name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import hdrs, web

from fingerpost.client.tasks.wire import BINARY_TYPE, HEADER_LENGTH
from fingerpost.client.wire import ErrorBody
from fingerpost.errors import FingerpostError, InvalidRequest, UnsupportedImage
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.protocols.classify import labels_wanted
from fingerpost.worker.protocols.infer_items import InferItems
from fingerpost.worker.protocols.infer_one import infer_one
from fingerpost.worker.serving.errors import typed_error
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.tasks.items import AnswerOptions

if TYPE_CHECKING:
    from fingerpost.client.wire import TimingsMs
    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.serving.fast_path import Answer
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Uploads
    from fingerpost.worker.tasks.answer import TaskAnswer
    from fingerpost.worker.tasks.items import Part
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["InferProtocol"]

_BINARY: Final = frozenset({Task.EMBEDDING, Task.TENSORS})
# From so many images on, other requests have their turn between the answers.
_ANSWERS_AT_A_TIME: Final = 4
_PLAIN: Final = AnswerOptions()


class InferProtocol:
    """Items in, the answers of the model's task out; `add_to` makes the route."""

    def __init__(
        self,
        config: WorkerConfig,
        metrics: WorkerMetrics,
        uploads: Uploads,
        turns: Turns,
        shared: SharedMemory,
    ) -> None:
        self._images = config.images
        self._items = InferItems(config, uploads, turns, shared)
        self._metrics = metrics
        self._turns = turns

    def add_to(self, context: RouteContext) -> None:
        """Add the route."""

        def check(request: Request) -> None:
            self._items.check(request)
            _accepts_binary(request, Task.TENSORS)

        routes = ProtocolRoutes(context, "/v1/infer", typed_error)
        routes.inference("/v1/infer/{model}", self._infer, check=check)

    async def _infer(self, request: Request, admitted: Admitted) -> Answer:
        served = admitted.served
        top = labels_wanted(request, "mask", "size")
        options = _options(request)
        binary = _accepts_binary(request, served.task)
        items = await self._items.read(request, admitted)
        admitted.images = len(items)
        if len(items) == 1:
            answers: list[Any] = [await self._one(items[0][1], admitted, top, options)]
        else:
            answers = await asyncio.gather(
                *(self._one(parts, admitted, top, options) for _, parts in items),
                return_exceptions=True,
            )
        results, blobs = [], []
        for number, ((name, _), each) in enumerate(zip(items, answers, strict=True), 1):
            result: dict[str, Any] = {"name": name.encode("utf-8", "backslashreplace").decode()}
            if isinstance(each, FingerpostError):
                result["error"] = ErrorBody.of(each)
            elif isinstance(each, BaseException):
                raise each
            else:
                answer, timings = each
                members: dict[str, Any] = {}
                if binary:
                    members, more = answer.to_binary()
                    blobs += more
                else:
                    members = answer.to_json()
                result |= {**members, "timings_ms": timings}
                self._metrics.of(served.model).images.inc()
            results.append(msgspec.Raw(msgspec.json.encode(result)))
            if number % _ANSWERS_AT_A_TIME == 0:
                await self._turns.next()
        whole = {
            "model": served.model,
            "version": served.version,
            "task": served.task.value,
            "results": results,
        }
        text = msgspec.json.encode(whole)
        if not binary:
            return text
        return web.Response(
            body=b"".join((text, *blobs)),
            content_type=BINARY_TYPE,
            headers={HEADER_LENGTH: str(len(text))},
        )

    async def _one(
        self, parts: dict[str, Part], admitted: Admitted, top: int, options: AnswerOptions
    ) -> tuple[TaskAnswer, TimingsMs]:
        return await infer_one(
            admitted.served,
            parts,
            top,
            options,
            self._images,
            deadline=admitted.deadline,
            alone=admitted.alone,
            flow=admitted.flow,
        )


def _options(request: Request) -> AnswerOptions:
    """What is asked of a segmentation: `?mask=png|rle` and `?size=image|model`.

    Raises:
        InvalidRequest: another value.
    """
    if not request.query_string:
        return _PLAIN
    mask, size = request.query.get("mask", "png"), request.query.get("size", "image")
    if mask not in ("png", "rle") or size not in ("image", "model"):
        raise InvalidRequest(f"mask={mask!r}, size={size!r}: use png or rle, and image or model")
    return AnswerOptions(mask=mask, model_size=size == "model")


def _accepts_binary(request: Request, task: Task) -> bool:
    """Whether the arrays of the answer are wanted as bytes.

    Raises:
        UnsupportedImage: the request accepts neither form.
    """
    accepted = request.headers.get(hdrs.ACCEPT, "*/*").lower()
    if BINARY_TYPE in accepted:
        return True
    if "json" in accepted:
        return False
    if "*/*" in accepted or "application/*" in accepted:
        return task in _BINARY
    raise UnsupportedImage(
        f"Accept: {accepted[:100]} is not a form of an answer: use application/json, or "
        f"{BINARY_TYPE} for binary arrays"
    )
