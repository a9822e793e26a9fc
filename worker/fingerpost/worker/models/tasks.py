"""What a model answers: its task, as `model.toml` names it, and the settings of each task.

::

    task = "detection"                # by default classification

    [detection]
    layout = "yolov8"                 # how boxes, scores and classes lie in the outputs
    min_score = 0.25
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

import msgspec

__all__ = ["DetectionLayout", "DetectionSpec", "InputTensor", "SegmentationSpec", "Task"]


class Task(Enum):
    """What a model answers for an image.

    `classification`: one of its labels, by scores that sum to 1. `multilabel`: any number of its
    labels, each by a score from 0 to 1. `embedding`: a vector. `regression`: one number or several.
    `detection`: boxes with a label and a score each. `segmentation`: a class for each pixel.
    `tensors`: its outputs as they are.
    """

    CLASSIFICATION = "classification"
    MULTILABEL = "multilabel"
    EMBEDDING = "embedding"
    REGRESSION = "regression"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"
    TENSORS = "tensors"

    @property
    def one_row(self) -> bool:
        """Whether its models give one row of numbers for an image, as classifiers do."""
        return self not in (Task.DETECTION, Task.SEGMENTATION, Task.TENSORS)


class DetectionLayout(Enum):
    """How a detector's outputs lie.

    `torchvision`: boxes `[n, 4]` (x0, y0, x1, y1 in pixels), labels `[n]`, scores `[n]`.
    `tensorflow` (its detection API): `detection_boxes` `[N, n, 4]` (y0, x0, y1, x1 from 0 to 1),
    `detection_scores`, `detection_classes` and `num_detections`.
    `yolov5`: `[N, n, 5 + classes]`: centre, width and height in pixels, objectness, class scores.
    `yolov8` and `yolov11`: `[N, 4 + classes, n]`, the same without the objectness.
    `detr`: `logits` `[N, n, classes + 1]`, whose last class is no object, and `pred_boxes`
    `[N, n, 4]`: centre, width and height from 0 to 1.
    """

    TORCHVISION = "torchvision"
    TENSORFLOW = "tensorflow"
    YOLOV5 = "yolov5"
    YOLOV8 = "yolov8"
    YOLOV11 = "yolov11"
    DETR = "detr"

    @property
    def first_class(self) -> int:
        """The number that a model of this layout gives to its first label, if nothing else is said.

        The first two keep 0 for the background.
        """
        return int(self in (DetectionLayout.TORCHVISION, DetectionLayout.TENSORFLOW))


class InputTensor(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input of a model of several, where its file does not say it all.

    Attributes:
        image: whether it is an image; by default it is, where its shape can be one of 1 or 3
            channels.
        dtype: NumPy's name of its type.
        shape: its axes without that of the batch; -1 for an axis of any length.
    """

    image: bool | None = None
    dtype: str | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype is not None and self.dtype not in _TYPES:
            raise ValueError(f"inputs: dtype is {self.dtype!r}: use one of {', '.join(_TYPES)}")
        if self.shape is not None and (len(self.shape) > 8 or min(self.shape, default=1) < -1):
            raise ValueError(
                f"inputs: shape is {list(self.shape)}: it must be lengths, or -1 for any"
            )


_TYPES: Final = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64"),
)
_SHARES: Final = ("min_score", "max_overlap")


class DetectionSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a detector's outputs are read.

    Attributes:
        layout: how they lie.
        min_score: boxes with a lower score are left out.
        max_overlap: of two boxes of one class that overlap more (intersection over union), the one
            with the lower score is left out: for the YOLO layouts, whose models do not do this.
        max_boxes: most boxes in an answer, best first.
        first_class: the number that the model gives to the first label; by default 1 for
            `torchvision` and `tensorflow`, which keep 0 for the background, else 0.
        boxes, scores, classes, count: the names of the outputs, where they are not the layout's.
    """

    layout: DetectionLayout
    min_score: float = 0.25
    max_overlap: float = 0.45
    max_boxes: int = 300
    first_class: int | None = None
    boxes: str | None = None
    scores: str | None = None
    classes: str | None = None
    count: str | None = None

    def __post_init__(self) -> None:
        for key in _SHARES:
            value = getattr(self, key)
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise ValueError(f"detection.{key} is {value}: it must be 0 to 1")
        if not 1 <= self.max_boxes <= 10_000:
            raise ValueError(f"detection.max_boxes is {self.max_boxes}: it must be 1 to 10000")
        if self.first_class not in (None, 0, 1):
            raise ValueError(f"detection.first_class is {self.first_class}: it must be 0 or 1")

    @property
    def first(self) -> int:
        """The number of the first label: `first_class`, or the layout's."""
        return self.layout.first_class if self.first_class is None else self.first_class


class SegmentationSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a segmenter's output is read.

    Its output is scores `[N, classes, height, width]`, of which the highest counts (with
    `channels_last`, `[N, height, width, classes]`), or class numbers `[N, height, width]`.

    Attributes:
        channels_last: the classes are the last axis.
        outside: the class of pixels that the model did not see, because the image was cropped.
    """

    channels_last: bool = False
    outside: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.outside <= 65535:
            raise ValueError(f"segmentation.outside is {self.outside}: it must be 0 to 65535")
