"""Fingerpost's own protocol: `POST /` and `POST /v1/classify/{model}`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from fingerpost.client.wire import ClassifyAnswer, ErrorBody, ImageAnswer
from fingerpost.registry import FingerpostError, InvalidRequest
from fingerpost.registry.web import json_response
from fingerpost.worker.engine import best
from fingerpost.worker.uploads import read_images

if TYPE_CHECKING:
    from aiohttp import web

    from fingerpost.worker.admission import Admission, Admitted
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine import Outcome
    from fingerpost.worker.metrics import WorkerMetrics

__all__ = ["ClassifyProtocol"]

_DEFAULT_TOP: Final = 5


class ClassifyProtocol:
    """Raw or multipart images in, labels and scores out; `add_to` makes the routes."""

    def __init__(self, admission: Admission, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        self._admission = admission
        self._config = config
        self._metrics = metrics

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        self._admission.post(app, "/", self._one)
        self._admission.post(app, "/v1/classify/{model}", self._all)

    async def _one(self, request: web.Request, admitted: Admitted) -> web.Response:
        """`POST /`: one image in, `[[label, score], ...]` out."""
        top = _top(request)
        images = await self._read(request)
        if len(images) != 1:
            raise InvalidRequest(
                f"POST / takes one image, this body has {len(images)}: "
                "POST /v1/classify/MODEL takes several"
            )
        served = admitted.served
        outcome = await served.engine.classify(images[0][1])
        self._metrics.images.inc()
        return json_response(best(outcome.scores, served.labels, top))

    async def _all(self, request: web.Request, admitted: Admitted) -> web.Response:
        """`POST /v1/classify/{model}`: one image or several in, `ClassifyAnswer` out."""
        top = _top(request)
        images = await self._read(request)
        served = admitted.served
        if len(images) == 1:
            name, data = images[0]
            outcome = await served.engine.classify(data)
            results: tuple[ImageAnswer, ...] = (_answer(name, outcome, served.labels, top),)
        else:
            outcomes = await asyncio.gather(
                *(served.engine.classify(data) for _, data in images), return_exceptions=True
            )
            results = tuple(
                _answer(name, outcome, served.labels, top)
                for (name, _), outcome in zip(images, outcomes, strict=True)
            )
        self._metrics.images.inc(sum(not result.error for result in results))
        return json_response(
            ClassifyAnswer(model=served.model, version=served.version, results=results)
        )

    async def _read(self, request: web.Request) -> list[tuple[str, bytes]]:
        images = await read_images(request, self._config)
        self._metrics.body_bytes.inc(sum(len(data) for _, data in images))
        return images


def _answer(
    name: str, outcome: Outcome | BaseException, labels: tuple[str, ...], top: int
) -> ImageAnswer:
    if isinstance(outcome, FingerpostError):
        body = ErrorBody(code=outcome.code, message=outcome.message, retryable=outcome.retryable)
        return ImageAnswer(name=name, error=body)
    if isinstance(outcome, BaseException):
        raise outcome
    return ImageAnswer(
        name=name,
        predictions=best(outcome.scores, labels, top),
        timings_ms=outcome.timings,
    )


def _top(request: web.Request) -> int:
    text = request.query.get("top", str(_DEFAULT_TOP))
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise InvalidRequest(f"top={text!r}: give the number of labels wanted, 0 for all")
    return int(text)
