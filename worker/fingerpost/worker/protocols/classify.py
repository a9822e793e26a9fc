"""Fingerpost's own protocol: `POST /` and `POST /v1/classify/{model}`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client.wire import ClassifyAnswer, ErrorBody, ImageAnswer
from fingerpost.errors import FingerpostError, InvalidRequest
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.serving.errors import printable
from fingerpost.worker.serving.uploads import read_images

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.outcome import Labels, Outcome
    from fingerpost.worker.serving.admission import Admission, Admitted

__all__ = ["ClassifyProtocol", "error_body", "image_answer", "labels_wanted"]

_DEFAULT_TOP: Final = 5


class ClassifyProtocol:
    """Raw or multipart images in, labels and scores out; `add_to` makes the routes."""

    def __init__(self, admission: Admission, config: WorkerConfig) -> None:
        self._admission = admission
        self._config = config

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        self._admission.post(app, "/", self._one)
        self._admission.post(app, "/v1/classify/{model}", self._all)

    async def _one(self, request: web.Request, admitted: Admitted) -> bytes:
        """`POST /`: one image in, `[[label, score], ...]` out."""
        top = labels_wanted(request)
        images = await read_images(request, self._config)
        if len(images) != 1:
            raise InvalidRequest(
                f"POST / takes one image, this body has {len(images)}: "
                "POST /v1/classify/MODEL takes several"
            )
        served = admitted.served
        outcome = await served.engine.classify(images[0][1], deadline=admitted.deadline)
        self._admission.classified(served.model, 1)
        return msgspec.json.encode(top_labels(outcome.scores, served.labels, top))

    async def _all(self, request: web.Request, admitted: Admitted) -> bytes:
        """`POST /v1/classify/{model}`: one image or several in, `ClassifyAnswer` out."""
        top = labels_wanted(request)
        images = await read_images(request, self._config)
        served = admitted.served
        if len(images) == 1:
            name, data = images[0]
            outcome = await served.engine.classify(data, deadline=admitted.deadline)
            results: tuple[ImageAnswer, ...] = (image_answer(name, outcome, served.labels, top),)
        else:
            outcomes = await asyncio.gather(
                *(served.engine.classify(data, deadline=admitted.deadline) for _, data in images),
                return_exceptions=True,
            )
            results = tuple(
                image_answer(name, outcome, served.labels, top)
                for (name, _), outcome in zip(images, outcomes, strict=True)
            )
        self._admission.classified(served.model, sum(not result.error for result in results))
        return msgspec.json.encode(
            ClassifyAnswer(model=served.model, version=served.version, results=results)
        )


def image_answer(
    name: str, outcome: Outcome | BaseException, labels: Labels, top: int
) -> ImageAnswer:
    """An image's scores, or its error, in the protocol's form; raises what is no error of ours."""
    name = printable(name)
    if isinstance(outcome, FingerpostError):
        return ImageAnswer(name=name, error=error_body(outcome))
    if isinstance(outcome, BaseException):
        raise outcome
    return ImageAnswer(
        name=name,
        predictions=top_labels(outcome.scores, labels, top),
        timings_ms=outcome.timings,
    )


def error_body(error: FingerpostError) -> ErrorBody:
    """An error's place in an answer that carries others."""
    return ErrorBody(code=error.code, message=error.message, retryable=error.retryable)


def labels_wanted(request: web.Request) -> int:
    """How many labels `?top=` asks for, 5 by default, 0 for all. Raises `InvalidRequest`."""
    if not request.query_string:
        return _DEFAULT_TOP
    text = request.query.get("top", str(_DEFAULT_TOP))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InvalidRequest(f"top={text!r}: give the number of labels wanted, 0 for all")
    return int(text)
