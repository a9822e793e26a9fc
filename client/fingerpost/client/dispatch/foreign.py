"""Sends one image to one foreign worker, and reads the answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from fingerpost.basics.config_file import read_text
from fingerpost.client.foreign.answers import read_predictions
from fingerpost.client.foreign.errors import status_error
from fingerpost.client.foreign.metadata import ForeignModel
from fingerpost.client.foreign.requests import ForeignBody, foreign_body
from fingerpost.client.images.oneshot import OneShot
from fingerpost.client.routing import Outcome
from fingerpost.client.transport.reply import Reply, report_of, retry_after_s, worker_of
from fingerpost.client.wire import ReceivedAnswer, ReceivedImage
from fingerpost.errors import (
    BadAnswer,
    ConfigurationError,
    ImageError,
    InvalidInstance,
    InvalidRequest,
    WrongTask,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fingerpost.client.dispatch.call import Call
    from fingerpost.client.route.route import Route
    from fingerpost.client.transport.answer import Answer
    from fingerpost.client.transport.attempt import Attempt
    from fingerpost.client.transport.transport import Transport
    from fingerpost.registry import Instance

__all__ = ["ForeignSender"]

_MAX_ANSWER_BYTES: Final = 1 << 22
_MAX_INFERENCE_BYTES: Final = 1 << 26
# A millisecond of JSON.
_LONG_ANSWER_BYTES: Final = 1 << 16
_MAX_LABELS_BYTES: Final = 1 << 20
_MAX_MODELS: Final = 4096


class ForeignSender:
    """Speaks the protocols of foreign workers over the client's own connections.

    A worker is not asked for its load, so one that does not answer is given up after
    `ClientConfig.response_timeout_s`.

    Args:
        transport: the connections.
        route: how a worker is reached: directly, or through a proxy that relays.
        labels: see `ClientConfig.labels`.
    """

    def __init__(
        self,
        transport: Transport,
        route: Route,
        labels: Mapping[str, str | Sequence[str]] | None,
    ) -> None:
        self._transport = transport
        self._route = route
        self._sources = dict(labels or {})
        self._labels: dict[str, tuple[str, ...]] = {}
        self._models: dict[str, tuple[Instance, ForeignModel]] = {}

    async def classify(self, instance: Instance, call: Call, attempt: Attempt) -> Reply:
        """Send the attempt's image; a failure is returned as a `Reply` too.

        Raises:
            ImageError: the image cannot be decoded, or can be read only once.
            ConfigurationError: the file of labels cannot be read.
        """
        try:
            model = self._model(instance)
        except InvalidInstance as error:
            return Reply(outcome=Outcome.FAILED, error=BadAnswer(error.message))
        labels = self._labels_of(instance.service) or model.labels
        peer = self._route.foreign_address(instance)
        if model.task != "classification" and not call.infer:
            wrong = WrongTask(
                f"{peer} answers {model.task} (its metadata), not classification: use client.infer"
            )
            return Reply(outcome=Outcome.ANSWERED, error=wrong)
        image = await attempt.encoded()
        body = await self._body(model, call, image)
        attempt.data, attempt.liveness = body.data, None
        classifies = model.task == "classification"
        attempt.max_answer_bytes = _MAX_ANSWER_BYTES if classifies else _MAX_INFERENCE_BYTES
        head = f"{self._route.foreign_head(instance, model.path)}Accept: application/json\r\n"
        answer = await self._transport.send(
            instance.target, f"{head}{body.headers}".encode(), attempt
        )
        if isinstance(answer, Reply):
            return answer
        named = ""
        if not self._route.own_load:
            named = worker_of(answer)
            if answer.status != 200:
                refused = self._transport.refusal(instance.address, answer)
                # Of the proxy itself, or that the worker had the image and then said nothing.
                if not named or refused.silent:
                    return refused
        if answer.status != 200:
            reply = _failed(answer, model, call, peer)
        elif classifies:
            reply = await _in_a_thread_if_long(
                answer, lambda: _read(answer, model, labels, call, peer)
            )
        else:
            reply = await self._task(answer, model, labels, call, peer, image)
        report = report_of(answer) if instance.load_target else None
        return replace(reply, report=report, worker=named) if report or named else reply

    async def _task(
        self,
        answer: Answer,
        model: ForeignModel,
        labels: Sequence[str],
        call: Call,
        peer: str,
        image: bytes | OneShot,
    ) -> Reply:
        """Read the answer of another task, in a thread where it is long."""
        # Not at the top: most clients only classify.
        from fingerpost.client.foreign.boxes import frame_of
        from fingerpost.client.foreign.tasks import read_task

        def read() -> Reply:
            wants_frame = model.task == "detection" and not call.head_bytes
            frame = frame_of(image) if wants_frame and isinstance(image, bytes) else None
            names = call.reference.model, model.version
            found = read_task(model, answer.body, labels, frame, peer, names)
            return Reply(outcome=Outcome.ANSWERED, answer=found)

        return await _in_a_thread_if_long(answer, read)

    def _model(self, instance: Instance) -> ForeignModel:
        known = self._models.get(instance.id)
        if known is None or known[0] is not instance:
            if len(self._models) >= _MAX_MODELS:
                self._models.clear()
            known = self._models[instance.id] = instance, ForeignModel.of(instance)
        return known[1]

    async def _body(self, model: ForeignModel, call: Call, image: bytes | OneShot) -> ForeignBody:
        """The request's body; the same for each attempt at workers with the same metadata."""
        if call.foreign is not None and call.foreign[0] == model:
            return call.foreign[1]
        if isinstance(image, OneShot):
            raise ImageError(
                "the image comes from a source that can be read only once, and goes to a foreign "
                "worker, which needs it whole: read it, and give its bytes"
            )
        if call.head_bytes:
            from fingerpost.client.foreign.named import named_body

            body = named_body(model, image, call.head_bytes)
        elif model.tensor is None:
            body = foreign_body(model, image)
        else:
            loop = asyncio.get_running_loop()
            body = await loop.run_in_executor(None, foreign_body, model, image)
        call.foreign = model, body
        return body

    def _labels_of(self, service: str) -> tuple[str, ...]:
        known = self._labels.get(service)
        if known is None:
            known = self._labels[service] = _read_labels(self._sources.get(service, ()), service)
        return known


def _read_labels(source: str | Sequence[str], service: str) -> tuple[str, ...]:
    if not isinstance(source, str):
        return tuple(source)
    try:
        text = read_text(Path(source), most=_MAX_LABELS_BYTES)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"ClientConfig: labels of {service!r}: {source!r} cannot be read: {error}"
        ) from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


async def _in_a_thread_if_long(answer: Answer, read: Callable[[], Reply]) -> Reply:
    """What is read of an answer; a long one does not hold the event loop meanwhile."""
    try:
        if len(answer.body) < _LONG_ANSWER_BYTES:
            return read()
        return await asyncio.get_running_loop().run_in_executor(None, read)
    except BadAnswer as bad:
        return Reply(outcome=Outcome.FAILED, error=bad)


def _failed(answer: Answer, model: ForeignModel, call: Call, peer: str) -> Reply:
    outcome, error = status_error(
        answer.status,
        answer.body,
        peer,
        model.path,
        retry_after_s(answer.fields),
        asks_to_wait=b"retry-after" in answer.fields,
    )
    if call.head_bytes and type(error) is ImageError:  # 400 or 411
        error = InvalidRequest(error.message)
    return Reply(outcome=outcome, error=error)


def _read(
    answer: Answer, model: ForeignModel, labels: Sequence[str], call: Call, peer: str
) -> Reply:
    found = read_predictions(model, answer.body, labels, call.top, peer)
    name, version = call.reference.model, model.version
    if call.infer:
        # Not at the top: most clients only classify.
        from fingerpost.client.tasks.inference import classification

        inference = classification(name, version, found)
        return Reply(outcome=Outcome.ANSWERED, answer=inference)
    results = (ReceivedImage(name="data", predictions=found),)
    received = ReceivedAnswer(model=name, version=version, results=results)
    return Reply(outcome=Outcome.ANSWERED, answer=received)
