"""The tasks that read one row of numbers for each image: multilabel, embedding, regression.

Their models run as classifiers do, with the manifest's activation; only the answer differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.errors import BadOutput
from fingerpost.worker.engine.outcome import top_labels
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.tasks.answer import TaskAnswer

if TYPE_CHECKING:
    from fingerpost.worker.engine.outcome import Labels, Scores
    from fingerpost.worker.models.manifest import OutputSpec

__all__ = ["RowReader", "row_reader"]

# float16 and tables of activations are that exact.
_ROUNDING: Final = 1e-3
_THRESHOLD: Final = 0.5


class RowReader(Protocol):
    """Makes the answer for an image of a model's row."""

    @property
    def task(self) -> Task:
        """What the model answers."""
        ...

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        ...

    def read(self, row: Scores, labels: Labels, top: int) -> TaskAnswer:
        """The answer.

        Args:
            row: float32 `[K]`, finite.
            labels: in the order of the row; empty where the model has none.
            top: most labels in it, 0 for all.

        Raises:
            BadOutput: the row is not one of this task.
        """
        ...


class _Multilabel:
    task = Task.MULTILABEL

    def __init__(self, width: int, threshold: float) -> None:
        self.width = width
        self._threshold = threshold

    def read(self, row: Scores, labels: Labels, top: int) -> TaskAnswer:
        low, high = float(row.min()), float(row.max())
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            raise BadOutput(
                f"the scores, float32 [{len(row)}], go from {low:.4g} to {high:.4g}: task "
                "'multilabel' expects 0 to 1; if they are logits, set output.activation = "
                '"sigmoid" in model.toml'
            )
        ranked = top_labels(row, labels, top)
        return TaskAnswer(fields={"predictions": [e for e in ranked if e[1] >= self._threshold]})


class _Embedding:
    task = Task.EMBEDDING

    def __init__(self, width: int) -> None:
        self.width = width

    def read(self, row: Scores, labels: Labels, top: int) -> TaskAnswer:
        return TaskAnswer(arrays={"embedding": row})


class _Regression:
    task = Task.REGRESSION

    def __init__(self, width: int) -> None:
        self.width = width

    def read(self, row: Scores, labels: Labels, top: int) -> TaskAnswer:
        names = {"labels": [labels[i] for i in range(len(labels))]} if labels else {}
        return TaskAnswer(fields=names, arrays={"values": row})


def row_reader(task: Task, output: OutputSpec, width: int) -> RowReader | None:
    """The reader of a task whose model gives rows of `width`; None for the other tasks."""
    if task is Task.MULTILABEL:
        return _Multilabel(width, _THRESHOLD if output.threshold is None else output.threshold)
    if task is Task.EMBEDDING:
        return _Embedding(width)
    return _Regression(width) if task is Task.REGRESSION else None
