"""The figures of segmenters: how far the areas of each class overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from fingerpost.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["IGNORED", "AreaFigures", "SegmentationFigures", "SegmentationTally"]

IGNORED: Final = 255
"""The value of pixels that do not count, in masks of 8 bits: as in PASCAL VOC and Cityscapes."""

# Masks have up to 16 bits; a table of all pairs of more classes would take gigabytes.
_MOST_CLASSES: Final = 4096


class AreaFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How well the area of one class is found.

    Attributes:
        label: its name; its number where no answer named it.
        pixels: how many have it.
        iou: intersection over union of the class's area and the model's; None where neither has
            any.
        precision, recall: the share of right ones among the model's pixels of this class, and among
            the class's own; None without any.
    """

    label: str
    pixels: int
    iou: float | None
    precision: float | None
    recall: float | None


class SegmentationFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a segmenter, over the answered images.

    Attributes:
        iou: mean over the classes that a mask or an answer has (mIoU).
        accuracy: the share of pixels whose class is right.
        classes: by number.
    """

    iou: float
    accuracy: float
    classes: list[AreaFigures]


class SegmentationTally:
    """Counts pixels. `names` are those of the classes, as far as they are known."""

    def __init__(self, names: Mapping[int, str] | None = None) -> None:
        self._names = dict(names or {})
        self._counts = np.zeros((0, 0), np.int64)

    def add(
        self, true: NDArray[Any], found: NDArray[Any], names: Mapping[int, str] | None = None
    ) -> None:
        """Count one answer.

        Args:
            true: the class of each pixel, int64 `[height, width]`; `IGNORED` does not count.
            found: the same, as the model has it.
            names: of the classes in the answer.

        Raises:
            InvalidRequest: the mask has another size than the answer, or a class over 4,095.
        """
        if true.shape != found.shape:
            raise InvalidRequest(
                f"its mask is {true.shape[1]} x {true.shape[0]}, but the image is "
                f"{found.shape[1]} x {found.shape[0]} as it was sent: make masks of the images' "
                "own size"
            )
        counted = true != IGNORED
        rows, columns = true[counted], found[counted].astype(np.int64)
        if not rows.size:
            return
        classes = int(max(rows.max(), columns.max())) + 1
        if classes > _MOST_CLASSES or rows.min() < 0:
            raise InvalidRequest(
                f"its mask or its answer has values from {min(rows.min(), columns.min())} to "
                f"{classes - 1}: masks hold class numbers, 0 to {_MOST_CLASSES - 1}"
            )
        self._names |= names or {}
        more = classes - len(self._counts)
        if more > 0:
            self._counts = np.pad(self._counts, (0, more))
        classes = len(self._counts)
        pairs = np.bincount(rows * classes + columns, minlength=classes * classes)
        self._counts += pairs.reshape(classes, classes)

    def figures(self) -> SegmentationFigures:
        """The figures."""
        right = self._counts.diagonal()
        true, given = self._counts.sum(axis=1), self._counts.sum(axis=0)
        classes = [
            AreaFigures(
                label=self._names.get(number, str(number)),
                pixels=int(true[number]),
                iou=_share(right[number], true[number] + given[number] - right[number]),
                precision=_share(right[number], given[number]),
                recall=_share(right[number], true[number]),
            )
            for number in range(len(right))
        ]
        known = [each.iou for each in classes if each.iou is not None]
        return SegmentationFigures(
            iou=sum(known) / len(known) if known else 0.0,
            accuracy=_share(right.sum(), true.sum()) or 0.0,
            classes=classes,
        )


def _share(part: Any, whole: Any) -> float | None:
    return float(part / whole) if whole else None
