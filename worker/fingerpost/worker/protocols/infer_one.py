"""One item of an inference of any task, whichever protocol carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.protocols.tensors import split_batch
from fingerpost.worker.protocols.v2.reading import TensorReader
from fingerpost.worker.protocols.v2.tensors import items_of
from fingerpost.worker.tasks.answer import TaskAnswer
from fingerpost.worker.tasks.engine import TaskEngine
from fingerpost.worker.tasks.inputs import ModelInputs
from fingerpost.worker.tasks.items import part_text

if TYPE_CHECKING:
    from fingerpost.client.wire import TimingsMs
    from fingerpost.registry.http.request_head import RequestHead
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.images import ImageConfig
    from fingerpost.worker.protocols.v2.shared_memory import SharedMemory
    from fingerpost.worker.repository.manager import ServedVersion
    from fingerpost.worker.serving.memory import Held
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.tasks.items import AnswerOptions, Part

__all__ = ["BinaryItems", "infer_one", "inputs_of"]

# Of a model whose answer is one row: its one input is an image, of any name.
_ROW = ModelInputs(images={"image": ImageInput()}, numbers={}, batched=True, batch=None)


def inputs_of(served: ServedVersion) -> ModelInputs:
    """What goes into a model for one item."""
    engine = served.engine
    return engine.backend.inputs if isinstance(engine, TaskEngine) else _ROW


class BinaryItems:
    """Reads items in the binary form of the Open Inference Protocol."""

    def __init__(self, config: WorkerConfig, turns: Turns, shared: SharedMemory) -> None:
        self._most = config.batching.max_queue
        self._reader = TensorReader(config, turns, shared)

    async def read(
        self,
        head: RequestHead,
        data: bytes | memoryview,
        json_bytes: int | None,
        held: Held,
        served: ServedVersion,
    ) -> list[dict[str, Part]]:
        """The inputs of each item by their names.

        Args:
            head: of the request.
            data: its body.
            json_bytes: how many bytes of it are the JSON; None for all.
            held: counts what is copied from shared memory.
            served: whose inputs they are.

        Raises:
            InvalidRequest: it is not of that form, or not one that the model takes.
        """
        text, asked, binary = await self._reader.read(head, data, json_bytes, held)
        inputs = inputs_of(served)
        if inputs is _ROW and len(asked.inputs) == 1:
            (one,) = asked.inputs
            found = await self._reader.items(text, one, binary.all, f"input {one.name[:100]!r}")
            return items_of({"image": found}, most=self._most)
        named = await self._reader.named(text, asked, binary, inputs)
        return items_of(named, most=self._most)


async def infer_one(
    served: ServedVersion,
    parts: dict[str, Part],
    top: int,
    options: AnswerOptions,
    images: ImageConfig,
    *,
    deadline: float,
    alone: bool,
    flow: Flow,
) -> tuple[TaskAnswer, TimingsMs]:
    """The answer of a model's task to one item.

    Args:
        parts: its inputs by their names.
        top: how many labels it has; 0 for all.
        options: what else is asked of it.
        images: the limits of images.
        deadline: by the loop's clock.
        alone: whether nothing else is to be run beside it.
        flow: its tenant and class.

    Raises:
        InvalidRequest: not the inputs of the model.
        FingerpostError: see `Engine.classify` and `TaskEngine.answer`.
    """
    engine = served.engine
    if isinstance(engine, TaskEngine):
        return await engine.answer(parts, options, deadline=deadline, alone=alone, flow=flow)
    image = await _one_image(parts, images)
    if isinstance(image, np.ndarray):
        outcome = await engine.infer(image, deadline=deadline, flow=flow)
    else:
        outcome = await engine.classify(image, deadline=deadline, alone=alone, flow=flow)
    if served.reader is not None:
        return served.reader.read(outcome.scores, served.labels, top), outcome.timings
    predictions = top_labels(outcome.scores, served.labels, top)
    return TaskAnswer(fields={"predictions": predictions}), outcome.timings


async def _one_image(parts: dict[str, Part], images: ImageConfig) -> Part:
    """The image for a model whose answer is one row.

    Raises:
        InvalidRequest: several inputs, or an array that is not an image.
    """
    if len(parts) != 1:
        sent = ", ".join(f"{name} ({part_text(part)})" for name, part in parts.items())
        raise InvalidRequest(
            f"the request has the inputs {sent or 'none'}: this model takes one image"
        )
    ((name, part),) = parts.items()
    if not isinstance(part, np.ndarray):
        return part
    what = f"input {name[:100]!r}"
    if part.ndim != 3:
        raise InvalidRequest(
            f"{what} is {part_text(part)}: this model takes an image, which has three axes"
        )
    return (await split_batch(part, images, what, max_images=1))[0]
