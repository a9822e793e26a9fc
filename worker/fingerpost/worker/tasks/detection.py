"""Reads the outputs of detectors: boxes, scores and classes, in the layouts of their families.

Sources of the layouts: torchvision's `detection` models, TensorFlow's object detection API
(`detection_boxes` and its siblings), Ultralytics' exports of YOLO v5, v8 and v11, and DETR
(arXiv:2005.12872) as Hugging Face and its authors export it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fingerpost.errors import BadOutput
from fingerpost.worker.models.tasks import DetectionLayout, Task
from fingerpost.worker.tasks.answer import TaskAnswer
from fingerpost.worker.tasks.overlaps import without_overlaps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.models.tasks import DetectionSpec
    from fingerpost.worker.tasks.items import TaskItem

    Outputs = Mapping[str, NDArray[Any]]

__all__ = ["DetectionReader"]

# More candidates than any image has objects: with a tiny min_score a YOLO gives 8,400 or 25,200.
_MOST_CANDIDATES: Final = 30_000


class _Found(NamedTuple):
    """Boxes float64 `[n, 4]` in pixels of the model's input, scores `[n]`, classes int64 `[n]`."""

    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    classes: NDArray[np.int64]

    def chosen(self, places: NDArray[np.intp]) -> _Found:
        return _Found(self.boxes[places], self.scores[places], self.classes[places])


class DetectionReader:
    """Makes the answer for an image of a detector's outputs.

    Args:
        spec: how the outputs are read.
        labels: the model's; without any, classes are named by their numbers.
    """

    task = Task.DETECTION

    def __init__(self, spec: DetectionSpec, labels: tuple[str, ...]) -> None:
        self._spec = spec
        self._labels = labels
        self._read = _READERS[spec.layout]
        # Its models take a list of images, and say nothing of a batch in what they return.
        self.whole_outputs = spec.layout is DetectionLayout.TORCHVISION

    def read(self, outputs: Outputs, item: TaskItem, canvas: tuple[int, int]) -> TaskAnswer:
        """The answer.

        Args:
            outputs: the model's, for this image alone, without the axis of the batch.
            item: the image; its placement says where it lies in the model's input.
            canvas: height and width of the model's input.

        Raises:
            BadOutput: an output is missing or of another shape, has numbers that are not finite, or
                names a class that the model has no label for.
        """
        spec = self._spec
        found = self._read(outputs, spec, canvas)
        good = np.flatnonzero(found.scores >= spec.min_score)
        good = good[np.argsort(-found.scores[good], kind="stable")][:_MOST_CANDIDATES]
        found = found.chosen(good)
        self._check_classes(found.classes)
        if spec.layout in _OVERLAPPING:
            kept = without_overlaps(*found, max_overlap=spec.max_overlap, most=spec.max_boxes)
            found = found.chosen(kept)
        placement = item.placement
        boxes = found.boxes
        fields: dict[str, Any] = {"width": canvas[1], "height": canvas[0], "orientation": 1}
        if placement is not None:
            boxes = placement.to_sent(boxes)
            fields = {
                "width": placement.width,
                "height": placement.height,
                "orientation": placement.orientation,
            }
        seen = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        seen = seen[: spec.max_boxes]
        classes = found.classes[seen]
        return TaskAnswer(
            fields={**fields, "labels": [self._label(each) for each in classes.tolist()]},
            arrays={
                "boxes": boxes[seen].astype(np.float32),
                "scores": found.scores[seen].astype(np.float32),
                "classes": classes,
            },
        )

    def _label(self, number: int) -> str:
        return self._labels[number] if self._labels else str(number)

    def _check_classes(self, classes: NDArray[np.int64]) -> None:
        known = len(self._labels)
        wrong = (classes < 0) | (classes >= known) if known else classes < 0
        if wrong.any():
            first = self._spec.first
            number = int(classes[wrong][0]) + first
            last = f"{first} to {first + known - 1}" if known else f"{first} or more"
            raise BadOutput(
                f"a box has class {number}, but the classes are {last} (detection.first_class is "
                f"{first}): give as many labels as the model has classes, or another first_class"
            )


def _output(
    outputs: Outputs, given: str | None, names: tuple[str, ...], what: str
) -> tuple[str, NDArray[Any]]:
    """The output of a name that was given, or that the layout has."""
    wanted = (given,) if given else names
    for name in wanted:
        if name in outputs:
            return name, outputs[name]
    have = ", ".join(f"{name} {list(each.shape)}" for name, each in outputs.items())
    raise BadOutput(
        f"there is no output {wanted[0]!r} for {what}: the model gives {have}; name it by "
        f"detection.{what} in model.toml"
    )


def _finite(name: str, array: NDArray[Any]) -> NDArray[np.float64]:
    floats = array.astype(np.float64)
    if not np.isfinite(floats).all():
        raise BadOutput(f"output {name!r}, {list(array.shape)}, has numbers that are not finite")
    return floats


def _rows(name: str, array: NDArray[Any], width: int | None, expected: str) -> NDArray[np.float64]:
    """An output with two axes, the last of `width` where that is known."""
    if array.ndim != 2 or (width is not None and array.shape[1] != width):
        raise BadOutput(
            f"output {name!r} is {array.dtype.name} {list(array.shape)} for an image: expected "
            f"{expected}"
        )
    return _finite(name, array)


def _row(name: str, array: NDArray[Any], count: int) -> NDArray[np.float64]:
    if array.shape != (count,):
        raise BadOutput(
            f"output {name!r} is {array.dtype.name} {list(array.shape)} for an image: expected "
            f"[{count}], one number for each box"
        )
    return _finite(name, array)


def _torchvision(outputs: Outputs, spec: DetectionSpec, canvas: tuple[int, int]) -> _Found:
    named = dict(outputs)
    if not spec.boxes and "boxes" not in named and len(named) == 3:
        named = _by_shape(named)
    name, boxes = _output(named, spec.boxes, ("boxes",), "boxes")
    boxes = _rows(name, boxes, 4, "[n, 4], the edges of each box")
    name, scores = _output(named, spec.scores, ("scores",), "scores")
    scores = _row(name, scores, len(boxes))
    name, classes = _output(named, spec.classes, ("labels", "classes"), "classes")
    classes = _row(name, classes, len(boxes))
    return _Found(boxes, scores, classes.astype(np.int64) - spec.first)


def _by_shape(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """Outputs that an exporter has numbered: four columns, whole numbers, and other numbers."""
    found = {}
    for name, each in outputs.items():
        kind = "boxes" if each.ndim == 2 else "labels" if each.dtype.kind in "iu" else "scores"
        found[kind if kind not in found else name] = each
    return found


def _tensorflow(outputs: Outputs, spec: DetectionSpec, canvas: tuple[int, int]) -> _Found:
    name, boxes = _output(outputs, spec.boxes, ("detection_boxes",), "boxes")
    boxes = _rows(name, boxes, 4, "[n, 4], the edges of each box from 0 to 1")
    name, scores = _output(outputs, spec.scores, ("detection_scores",), "scores")
    scores = _row(name, scores, len(boxes))
    name, classes = _output(outputs, spec.classes, ("detection_classes",), "classes")
    classes = _row(name, classes, len(boxes))
    count = len(boxes)
    if spec.count or "num_detections" in outputs:
        name, given = _output(outputs, spec.count, ("num_detections",), "count")
        if given.size != 1 or not 0 <= _finite(name, given).item() <= count:
            raise BadOutput(
                f"output {name!r} is {given.ravel()[:4].tolist()}, {list(given.shape)}, for an "
                f"image: expected one number from 0 to {count}, how many boxes count"
            )
        count = int(given.item())
    height, width = canvas
    boxes = boxes[:, [1, 0, 3, 2]] * [width, height, width, height]
    return _Found(boxes[:count], scores[:count], classes.astype(np.int64)[:count] - spec.first)


def _edges(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """x0, y0, x1, y1 of centre, width and height."""
    half = centred[:, 2:4] / 2
    return np.concatenate([centred[:, :2] - half, centred[:, :2] + half], axis=1)


def _best(scores: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    classes = scores.argmax(axis=1).astype(np.int64)
    return np.take_along_axis(scores, classes[:, None], 1)[:, 0], classes


def _only(outputs: Outputs, spec: DetectionSpec) -> tuple[str, NDArray[Any]]:
    """The output with boxes, scores and classes in one; others, of three axes, are ignored."""
    if spec.boxes or len(outputs) == 1:
        return _output(outputs, spec.boxes, tuple(outputs), "boxes")
    return _output(outputs, None, ("output0", "output", "output_0"), "boxes")


def _yolov5(outputs: Outputs, spec: DetectionSpec, canvas: tuple[int, int]) -> _Found:
    name, output = _only(outputs, spec)
    rows = _rows(name, output, None, "[n, 5 + classes], layout yolov5")
    if rows.shape[1] < 6:
        raise BadOutput(
            f"output {name!r} is {list(output.shape)} for an image: layout yolov5 expects "
            "[n, 5 + classes]"
        )
    scores, classes = _best(rows[:, 5:] * rows[:, 4:5])
    return _Found(_edges(rows[:, :4]), scores, classes - spec.first)


def _yolov8(outputs: Outputs, spec: DetectionSpec, canvas: tuple[int, int]) -> _Found:
    name, output = _only(outputs, spec)
    rows = _rows(name, output, None, "[4 + classes, n], layout yolov8").T
    if rows.shape[1] < 5:
        raise BadOutput(
            f"output {name!r} is {list(output.shape)} for an image: layout yolov8 expects "
            "[4 + classes, n]"
        )
    scores, classes = _best(rows[:, 4:])
    return _Found(_edges(rows[:, :4]), scores, classes - spec.first)


def _detr(outputs: Outputs, spec: DetectionSpec, canvas: tuple[int, int]) -> _Found:
    name, logits = _output(outputs, spec.scores, ("logits", "pred_logits"), "scores")
    logits = _rows(name, logits, None, "[n, classes + 1], logits")
    name, boxes = _output(outputs, spec.boxes, ("pred_boxes",), "boxes")
    boxes = _rows(name, boxes, 4, "[n, 4], centre, width and height from 0 to 1")
    if len(boxes) != len(logits):
        raise BadOutput(
            f"output {name!r} has {len(boxes)} boxes for an image, but there are logits of "
            f"{len(logits)}"
        )
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores, classes = _best((powers / powers.sum(axis=1, keepdims=True))[:, :-1])
    height, width = canvas
    return _Found(_edges(boxes) * [width, height, width, height], scores, classes - spec.first)


_READERS: Final[
    dict[DetectionLayout, Callable[[Outputs, DetectionSpec, tuple[int, int]], _Found]]
] = {
    DetectionLayout.TORCHVISION: _torchvision,
    DetectionLayout.TENSORFLOW: _tensorflow,
    DetectionLayout.YOLOV5: _yolov5,
    DetectionLayout.YOLOV8: _yolov8,
    DetectionLayout.YOLOV11: _yolov8,
    DetectionLayout.DETR: _detr,
}
_OVERLAPPING: Final = frozenset(
    {DetectionLayout.YOLOV5, DetectionLayout.YOLOV8, DetectionLayout.YOLOV11}
)
