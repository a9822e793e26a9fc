"""Fingerpost's own protocol: `POST /` and `POST /v1/classify/{model}`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from fingerpost.client.wire import ClassifyAnswer, ErrorBody, ImageAnswer
from fingerpost.errors import FingerpostError, InvalidRequest, WrongTask
from fingerpost.registry.http.query_parameters import check_parameters
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.serving.errors import typed_error
from fingerpost.worker.serving.routes import ProtocolRoutes
from fingerpost.worker.serving.uploads import check_image_headers

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fingerpost.registry.http.request import Request
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels, Outcome
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.serving.routes import Admitted, RouteContext
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.serving.uploads import Image, Uploads
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["ClassifyProtocol", "image_answer", "labels_wanted", "run_image", "wrong_task"]

_DEFAULT_TOP: Final = 5
# Of 1,000 labels each: a millisecond or two.
_ANSWERS_AT_A_TIME: Final = 4


class ClassifyProtocol:
    """Raw or multipart images in, labels and scores out; `add_to` makes the routes."""

    def __init__(
        self, config: WorkerConfig, metrics: WorkerMetrics, uploads: Uploads, turns: Turns
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._uploads = uploads
        self._turns = turns

    def add_to(self, context: RouteContext) -> None:
        """Add the routes."""

        def check(request: Request) -> None:
            check_image_headers(request, self._config)

        routes = ProtocolRoutes(context, "/v1/classify", typed_error)
        routes.inference("/v1/classify/{model}", self._all, check=check)
        root = ProtocolRoutes(context, "/", typed_error)
        root.inference("/", self._one, check=check)

    async def _one(self, request: Request, admitted: Admitted) -> bytes:
        """`POST /`: one image in, `[[label, score], ...]` out."""
        top = labels_wanted(request)
        served = admitted.served
        if served.task is not Task.CLASSIFICATION:
            raise wrong_task(served)
        images = await self._uploads.read_images(request, admitted)
        if len(images) != 1:
            raise InvalidRequest(
                f"POST / takes one image, this body has {len(images)}: "
                "POST /v1/classify/MODEL takes several"
            )
        outcome = await run_image(images[0][1], admitted, alone=admitted.alone)
        self._metrics.of(served.model).images.inc()
        return msgspec.json.encode(top_labels(outcome.scores, served.labels, top))

    async def _all(self, request: Request, admitted: Admitted) -> bytes:
        """`POST /v1/classify/{model}`: one image or several in, `ClassifyAnswer` out."""
        top = labels_wanted(request, "digest")
        served = admitted.served
        if served.task is not Task.CLASSIFICATION:
            raise wrong_task(served)
        image = self._uploads.arrived_image(request, admitted)
        if image is None:
            images = await self._uploads.read_images(request, admitted)
        else:
            images = [("data", image)]
        images_counted = self._metrics.of(served.model).images
        if len(images) == 1:
            name, data = images[0]
            outcome = await run_image(data, admitted, alone=admitted.alone)
            images_counted.inc()
            answer = image_answer(name, outcome, served.labels, top)
            return msgspec.json.encode(
                ClassifyAnswer(
                    model=served.model,
                    version=served.version,
                    results=(answer,),
                    digest=_digest_wanted(request, served) if request.query_string else UNSET,
                )
            )
        admitted.images = len(images)
        outcomes = await asyncio.gather(
            *(run_image(data, admitted) for _, data in images), return_exceptions=True
        )
        results = []
        for number, ((name, _), each) in enumerate(zip(images, outcomes, strict=True), 1):
            answer = image_answer(name, each, served.labels, top)
            images_counted.inc(not answer.error)
            results.append(msgspec.Raw(msgspec.json.encode(answer)))
            if number % _ANSWERS_AT_A_TIME == 0:
                await self._turns.next()
        whole: dict[str, object] = {
            "model": served.model,
            "version": served.version,
            "results": results,
            "digest": _digest_wanted(request, served),
        }
        if whole["digest"] is UNSET:
            del whole["digest"]
        return msgspec.json.encode(whole)


def run_image(image: Image, admitted: Admitted, *, alone: bool = False) -> Awaitable[Outcome]:
    """The outcome of an encoded image, or of a frame; see `Engine.classify`."""
    engine, deadline, flow = admitted.served.engine, admitted.deadline, admitted.flow
    if isinstance(image, np.ndarray):
        return engine.infer(image, deadline=deadline, flow=flow)
    return engine.classify(image, deadline=deadline, alone=alone, flow=flow)


def image_answer(
    name: str, outcome: Outcome | BaseException, labels: Labels, top: int
) -> ImageAnswer:
    """The answer for one image: its best labels, or its error.

    Args:
        outcome: the engine's; an exception that is not a `FingerpostError` is raised.
        top: how many labels; 0 for all.
    """
    if not name.isascii():  # JSON has no lone surrogates
        name = name.encode("utf-8", "backslashreplace").decode()
    if isinstance(outcome, FingerpostError):
        return ImageAnswer(name=name, error=ErrorBody.of(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    return ImageAnswer(
        name=name,
        predictions=top_labels(outcome.scores, labels, top),
        timings_ms=outcome.timings,
    )


def wrong_task(served: ServedVersion) -> WrongTask:
    """The error for a request to classify, of a model that answers another task."""
    return WrongTask(
        f"{served.model}@{served.version} answers {served.task.value}, not classification: use "
        f"POST /v1/infer/{served.model} (client.infer, fingerpost infer)"
    )


def _digest_wanted(request: Request, served: ServedVersion) -> str | UnsetType:
    """The digest of the model, for `?digest=1`.

    Raises:
        InvalidRequest: another value, or this worker knows no digest.
    """
    text = request.query.get("digest")
    if text is None:
        return UNSET
    if text != "1":
        raise InvalidRequest(f"digest={text!r}: use digest=1")
    if not served.digest:
        raise InvalidRequest(
            f"{served.model}@{served.version} has no digest: start the worker with "
            "--require-signature"
        )
    return served.digest


def labels_wanted(request: Request, *others: str) -> int:
    """The number of labels that `?top=` asks for, by default 5; 0 for all.

    Raises:
        InvalidRequest: it is not a number, or there is another parameter than `others`.
    """
    if not request.query_string:
        return _DEFAULT_TOP
    check_parameters(request.query, ("top", *others))
    text = request.query.get("top", str(_DEFAULT_TOP))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InvalidRequest(f"top={text!r}: give the number of labels, 0 for all")
    return int(text)
