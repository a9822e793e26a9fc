"""The result of one image of a stream, of a model that is not a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.classify import wrong_task
from fingerpost.worker.tasks.engine import TaskEngine
from fingerpost.worker.tasks.items import AnswerOptions, inputs_text

if TYPE_CHECKING:
    from fingerpost.client.wire import ImageAnswer
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["task_result"]

_PLAIN = AnswerOptions()


async def task_result(
    served: ServedVersion,
    name: str,
    data: bytes | memoryview,
    deadline: float,
    flow: Flow,
    top: int,
) -> ImageAnswer:
    """The result as `POST /v1/infer` has it in JSON, to be written as a frame.

    Raises:
        InvalidRequest: the model takes several inputs.
        FingerpostError: see `Engine.classify` and `TaskEngine.answer`.
    """
    engine = served.engine
    if isinstance(engine, TaskEngine):
        inputs = engine.backend.inputs
        if len(inputs.images) != 1 or inputs.numbers:
            raise InvalidRequest(
                f"a stream carries one image for an item; this model takes "
                f"{inputs_text(inputs.images, inputs.numbers)}: use POST /v1/infer/{served.model}"
            )
        (image,) = inputs.images
        answer, timings = await engine.answer({image: data}, _PLAIN, deadline=deadline, flow=flow)
    else:
        outcome = await engine.classify(data, deadline=deadline, flow=flow)
        if served.reader is None:
            raise wrong_task(served)
        answer, timings = served.reader.read(outcome.scores, served.labels, top), outcome.timings
    members = {"name": name, **answer.to_json(), "timings_ms": timings}
    return cast("ImageAnswer", msgspec.Raw(msgspec.json.encode(members)))
