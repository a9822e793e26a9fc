"""The typed results of `Client.infer`, one class for each task.

Arrays are NumPy's where NumPy is installed, else nested lists of numbers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from fingerpost.client.tasks.arrays import rows_of
from fingerpost.client.wire import Prediction, TimingsMs

__all__ = [
    "Box",
    "Classification",
    "Detection",
    "Embedding",
    "JsonAnswer",
    "Multilabel",
    "Regression",
    "Segmentation",
    "TaskResult",
    "Tensors",
]


class TaskResult(msgspec.Struct, frozen=True, kw_only=True):
    """What all results have.

    Attributes:
        model, version: what answered.
        worker, address: id and `host:port` of the worker that did.
        relay: `host:port` of the proxy that relayed the image; empty if none did.
        attempts: how many workers were asked, including the one that answered.
        elapsed_s: seconds from the call to the result.
        timings_ms: the times that the worker measured; None if it sent none.
    """

    model: str
    version: str
    worker: str = ""
    address: str = ""
    relay: str = ""
    attempts: int = 0
    elapsed_s: float = 0.0
    timings_ms: TimingsMs | None = None


class Classification(TaskResult, frozen=True, kw_only=True):
    """One label of several. `predictions` has the labels and their scores, best first."""

    predictions: tuple[Prediction, ...]

    @property
    def label(self) -> str:
        """The best label."""
        return self.predictions[0].label

    @property
    def score(self) -> float:
        """The score of the best label, 0 to 1."""
        return self.predictions[0].score


class Multilabel(TaskResult, frozen=True, kw_only=True):
    """The labels whose score reaches the model's threshold, best first; perhaps none."""

    predictions: tuple[Prediction, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels without their scores."""
        return tuple(each.label for each in self.predictions)


class Embedding(TaskResult, frozen=True, kw_only=True):
    """A vector: float32 `[dimensions]`."""

    vector: Any


class Regression(TaskResult, frozen=True, kw_only=True):
    """Numbers: `values` is float32 `[K]`, and `labels` has their names, if the model has any."""

    values: Any
    labels: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        """The number, where there is one. Raises `ValueError` where there are several."""
        if len(self.values) != 1:
            raise ValueError(f"the model gives {len(self.values)} values: use `values`")
        return float(self.values[0])

    def __getitem__(self, label: str) -> float:
        """The number of a name. Raises `KeyError`."""
        if label not in self.labels:
            raise KeyError(label)
        return float(self.values[self.labels.index(label)])


class Box(NamedTuple):
    """One object: its label and score, and its edges in pixels of the image as it was sent."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


class Detection(TaskResult, frozen=True, kw_only=True):
    """Objects, best first; iterating gives a `Box` for each.

    Attributes:
        boxes: float32 `[n, 4]`: left, top, right and bottom edge, in pixels of the image as it was
            sent, before its EXIF orientation is applied, from its top left corner.
        scores: float32 `[n]`, 0 to 1.
        classes: int64 `[n]`, places in the model's labels.
        labels: the name of each object's class.
        width, height: of the image as it was sent.
        orientation: its EXIF orientation, 1 to 8: how viewers turn it.
    """

    boxes: Any
    scores: Any
    classes: Any
    labels: tuple[str, ...]
    width: int
    height: int
    orientation: int = 1

    def __len__(self) -> int:
        """How many objects."""
        return len(self.labels)

    def __iter__(self) -> Iterator[Box]:
        """Each object, best first."""
        for label, score, box in zip(
            self.labels, rows_of(self.scores), rows_of(self.boxes), strict=True
        ):
            yield Box(label, score, *box)


class Segmentation(TaskResult, frozen=True, kw_only=True):
    """A class for each pixel.

    Attributes:
        png: the map as a gray PNG, whose values are classes: 8 bits, or 16 for over 256 classes.
        labels: the names of the classes that are in it, in the order of `classes`.
        classes: int64 `[n]`: which classes are in it, ascending.
        width, height: of the map.
    """

    png: bytes
    classes: Any
    labels: tuple[str, ...]
    width: int
    height: int

    @property
    def mask(self) -> Any:
        """The map: uint8 or uint16 `[height, width]`, or a list of rows without NumPy."""
        from PIL import Image

        from fingerpost.client.tasks.arrays import array_of

        with Image.open(io.BytesIO(self.png)) as image:
            wide = image.mode.startswith("I")
            pixels = image.convert("I").tobytes() if wide else image.tobytes()
            width, height = image.size
        if not wide:
            return array_of("UINT8", (height, width), pixels)
        mask = array_of("INT32", (height, width), pixels)
        return mask.astype("uint16") if hasattr(mask, "astype") else mask


class Tensors(TaskResult, frozen=True, kw_only=True):
    """The model's outputs by their names, as they are, without the axis of the batch."""

    outputs: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        """One output. Raises `KeyError`."""
        return self.outputs[name]


class JsonAnswer(TaskResult, frozen=True, kw_only=True):
    """The JSON that a foreign worker answered, as it is: `value` has Python's own types."""

    value: Any
