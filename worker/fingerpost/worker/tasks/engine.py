"""The engine of a model whose items are several tensors, or whose answers are not rows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fingerpost.errors import WrongTask
from fingerpost.worker.engine.engine import Engine
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.tasks.items import prepare_item

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from fingerpost.client.wire import TimingsMs
    from fingerpost.worker.backends.base import Item
    from fingerpost.worker.engine.fairness.flow import Flow
    from fingerpost.worker.engine.outcome import Outcome
    from fingerpost.worker.tasks.answer import TaskAnswer
    from fingerpost.worker.tasks.backend import TaskBackend
    from fingerpost.worker.tasks.items import AnswerOptions, Part

__all__ = ["TaskEngine"]


class TaskEngine(Engine):
    """An `Engine` around a `TaskBackend`; batches, deadlines and fairness are those of all."""

    _backend: TaskBackend

    @property
    def backend(self) -> TaskBackend:
        """The model."""
        return self._backend

    async def answer(
        self,
        parts: Mapping[str, Part],
        options: AnswerOptions,
        *,
        deadline: float | None = None,
        alone: bool = False,
        flow: Flow = DEFAULT_FLOW,
    ) -> tuple[TaskAnswer, TimingsMs]:
        """Prepare an item, wait for a batch, and run it.

        Args:
            parts: for each of the model's inputs an encoded image or an array without a batch.
            options: what is asked of the answer.
            deadline, alone, flow: see `Engine.classify`.

        Raises:
            InvalidRequest, ImageError: see `prepare_item`.
            BadOutput: the task cannot read what the model gives.
            Overloaded, DeadlineExceeded, ModelFailed, Draining: see `Engine.classify`.
        """
        inputs = self._backend.inputs
        make = partial(prepare_item, parts, inputs.images, inputs.numbers, options, self._images)
        cost = sum(
            each.nbytes if isinstance(each, np.ndarray) else len(each) for each in parts.values()
        )
        outcome = await self._run(
            cost / 1e6, deadline, flow, make=cast("Callable[[], Item]", make), alone=alone
        )
        return cast("TaskAnswer", outcome.scores), outcome.timings

    async def classify(
        self,
        data: bytes | bytearray | memoryview,
        *,
        deadline: float | None = None,
        alone: bool = False,
        flow: Flow = DEFAULT_FLOW,
    ) -> Outcome:
        """Not of this engine. Raises `WrongTask`."""
        raise _wrong()

    async def infer(
        self, image: NDArray[Any], *, deadline: float | None = None, flow: Flow = DEFAULT_FLOW
    ) -> Outcome:
        """Not of this engine. Raises `WrongTask`."""
        raise _wrong()


def _wrong() -> WrongTask:
    return WrongTask(
        "this model does not give one row of numbers for an image: use POST /v1/infer/MODEL, or "
        "/v2/models/MODEL/infer for its tensors"
    )
