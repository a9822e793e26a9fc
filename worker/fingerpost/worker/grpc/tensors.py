"""Runs the tensors of a request, whichever protocol they came by, on a model of any task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.errors import InvalidRequest
from fingerpost.worker.protocols.json_values import numbers
from fingerpost.worker.protocols.tensors import classify_all, split_batch, split_items
from fingerpost.worker.protocols.v2.binary import MAX_AXES, MAX_INPUTS
from fingerpost.worker.protocols.v2.tensors import run_tensors
from fingerpost.worker.tasks.engine import TaskEngine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.tensors import Item
    from fingerpost.worker.serving.routes import Admitted
    from fingerpost.worker.serving.turns import Turns
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

    # Encoded images, or the numbers of all items.
    Tensor = Sequence[Item] | NDArray[Any]

__all__ = ["TensorRunner", "check_shape", "read_list"]

# Numbers of a list that are read at a time: a millisecond.
_AT_A_TIME: Final = 1 << 14


class TensorRunner:
    """Runs named tensors."""

    def __init__(self, config: WorkerConfig, metrics: WorkerMetrics) -> None:
        self._config = config
        self._metrics = metrics

    async def run(
        self, admitted: Admitted, inputs: Mapping[str, Tensor], *, deadline: float
    ) -> dict[str, NDArray[Any]]:
        """Each output of the model, `[N, ...]`; those of a classifier are `scores`.

        Args:
            inputs: by name; a classifier has one, of any name.
            deadline: by the loop's clock.

        Raises:
            InvalidRequest: not the inputs of the model.
            FingerpostError: that of the first item that fails.
        """
        served = admitted.served
        if isinstance(served.engine, TaskEngine):
            outputs = await self._run_task(admitted, served.engine, inputs, deadline)
            count = admitted.images
        else:
            scores = await self._classify(admitted, inputs, deadline)
            outputs, count = {"scores": scores}, len(scores)
        self._metrics.of(served.model).images.inc(count)
        return outputs

    async def _classify(
        self, admitted: Admitted, inputs: Mapping[str, Tensor], deadline: float
    ) -> NDArray[Any]:
        if len(inputs) != 1:
            raise InvalidRequest(f"the request has {len(inputs)} inputs: the model has one")
        ((name, value),) = inputs.items()
        what = f"input {name[:255]!r}"
        most = self._config.batching.max_queue
        items: Sequence[Item]
        if isinstance(value, np.ndarray):
            items = await split_batch(value, self._config.images, what, max_images=most)
        else:
            items = value
        if not items:
            raise InvalidRequest(f"{what} is empty: give one image or more")
        return await classify_all(
            admitted, items, deadline=deadline, name=lambda number: f"{what}, image {number}"
        )

    async def _run_task(
        self,
        admitted: Admitted,
        engine: TaskEngine,
        inputs: Mapping[str, Tensor],
        deadline: float,
    ) -> dict[str, NDArray[Any]]:
        if len(inputs) > MAX_INPUTS:
            raise InvalidRequest(f"the request has more than {MAX_INPUTS} inputs")
        wanted = engine.backend.inputs
        axes, lone = wanted.axes, 0
        named: dict[str, Sequence[Item]] = {}
        for name, value in inputs.items():
            if not isinstance(value, np.ndarray):
                named[name] = value
                lone += len(value) == 1
            elif axes.get(name) == value.ndim or not value.ndim:  # one item without its batch
                named[name] = [value]
                lone += 1
            else:
                named[name] = split_items(value)
        most = self._config.batching.max_queue
        outputs = await run_tensors(admitted, engine, named, deadline=deadline, most=most)
        if not wanted.batched and lone == len(inputs):  # as that model itself takes and gives it
            return {name: each[0, ...] for name, each in outputs.items()}
        return outputs


def check_shape(shape: Sequence[int], what: str) -> list[int]:
    """The shape of an input. Raises `InvalidRequest` where it is not one of an image or a batch."""
    sides = list(shape[: MAX_AXES + 1])
    if len(sides) > MAX_AXES:
        raise InvalidRequest(f"{what} has a shape of more than eight axes")
    if any(side < 0 for side in sides):
        raise InvalidRequest(f"{what} has shape {sides}: no axis of a request is of unknown length")
    return sides


async def read_list(values: Any, dtype: np.dtype[Any], what: str, turns: Turns) -> NDArray[Any]:
    """The numbers of a repeated field, which are read in turns with the rest of the worker.

    Raises:
        InvalidRequest: one of them is too large for the type.
    """
    if len(values) <= _AT_A_TIME:
        return numbers(list(values), dtype, what)
    found = np.empty(len(values), dtype)
    for start in range(0, len(values), _AT_A_TIME):
        piece = values[start : start + _AT_A_TIME]
        found[start : start + len(piece)] = numbers(piece, dtype, what)
        await turns.next()
    return found
