"""The task `tensors`: a model's outputs as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fingerpost.worker.models.tasks import Task
from fingerpost.worker.tasks.answer import TaskAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fingerpost.worker.tasks.items import TaskItem

__all__ = ["TensorsReader"]


class TensorsReader:
    """Passes the outputs through; see `DetectionReader` for its methods."""

    task = Task.TENSORS
    whole_outputs = False

    def read(
        self, outputs: Mapping[str, NDArray[Any]], item: TaskItem, canvas: tuple[int, int]
    ) -> TaskAnswer:
        """The outputs of one item, without the axis of the batch."""
        return TaskAnswer(arrays=dict(outputs), flat=True)
