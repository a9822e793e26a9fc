"""The figures of detectors: mean average precision as COCO defines it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fingerpost.deploy.evaluation.truth.coco import DrawnBox

__all__ = ["DetectedBox", "DetectionClass", "DetectionFigures", "DetectionTally"]

# COCO's settings, as places in pycocotools' arrays: overlaps from 0.5 to 0.95 in steps of 0.05,
# objects of all sizes, and the best 100 boxes of an image.
_HALF: Final = 0
_THREE_QUARTERS: Final = 5
_ALL_SIZES: Final = 0
_BEST_100: Final = -1


class DetectedBox(NamedTuple):
    """A box that the model gave: its edges in the pixels that the drawn boxes are in."""

    label: str
    score: float
    left: float
    top: float
    right: float
    bottom: float


class DetectionClass(msgspec.Struct, frozen=True, kw_only=True):
    """How well one class is found.

    Attributes:
        label: its name.
        objects: how many there are, without groups.
        ap: average precision: the mean over overlaps from 0.5 to 0.95; None without objects.
        ap50: average precision where an overlap of half is enough.
        precision: the share of right ones among the boxes that the model gave, at an overlap of
            half; None where it gave none.
        recall: the share of objects that got a box that overlaps by half; None without objects.
        curve50: the precision at recalls of 0, 0.01 ... 1, at an overlap of half; 0 where it is not
            reached.
    """

    label: str
    objects: int
    ap: float | None
    ap50: float | None
    precision: float | None
    recall: float | None
    curve50: list[float]


class DetectionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a detector, over the answered images.

    Attributes:
        map: COCO's mAP@[.5:.95]: the mean of `ap` over the classes that have objects.
        map50, map75: the same where an overlap of 0.5, or of 0.75, is enough.
        mar100: COCO's AR: the mean over overlaps and classes of the share of objects found with the
            best 100 boxes of an image.
        objects: how many there are, without groups.
        boxes: how many boxes the model gave, of these classes.
        other_boxes: how many it gave of classes that are not among the categories; they are not
            judged.
        classes: each category, sorted by name.
    """

    map: float
    map50: float
    map75: float
    mar100: float
    objects: int
    boxes: int
    other_boxes: int
    classes: list[DetectionClass]


class DetectionTally:
    """Keeps what is in the images and what was found there.

    Args:
        labels: the names of the categories.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._labels = sorted(labels)
        self._numbers = {label: number for number, label in enumerate(self._labels, 1)}
        self._images: list[int] = []
        self._drawn: list[dict[str, Any]] = []
        self._found: list[dict[str, Any]] = []
        self._others = 0

    def add(self, image: int, drawn: Sequence[DrawnBox], found: Iterable[DetectedBox]) -> None:
        """Count one answer: the objects of an image, and the boxes that the model gave.

        The image's number, 1 or more and each once, decides between boxes of equal scores, so that
        the figures do not depend on the order of the answers.
        """
        self._images.append(image)
        for each in drawn:
            self._drawn.append(
                {
                    "image_id": image,
                    "category_id": self._numbers[each.label],
                    "bbox": [each.left, each.top, each.width, each.height],
                    "area": each.area,
                    "iscrowd": int(each.crowd),
                }
            )
        for box in found:
            number = self._numbers.get(box.label)
            if number is None:
                self._others += 1
                continue
            width, height = box.right - box.left, box.bottom - box.top
            self._found.append(
                {
                    "image_id": image,
                    "category_id": number,
                    "bbox": [box.left, box.top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "score": box.score,
                }
            )

    def figures(self) -> DetectionFigures:
        """The figures; after at least one answer.

        Raises:
            ModuleNotFoundError: pycocotools is not installed.
        """
        from pycocotools.cocoeval import COCOeval

        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            judge = COCOeval(self._coco(self._drawn), self._coco(self._found), "bbox")
            judge.evaluate()
            judge.accumulate()
        counts = self._counts(judge)
        precision = judge.eval["precision"][:, :, :, _ALL_SIZES, _BEST_100]
        recall = judge.eval["recall"][:, :, _ALL_SIZES, _BEST_100]
        known = [number for number, _ in enumerate(self._labels) if counts["objects", number]]
        classes = []
        for number, label in enumerate(self._labels):
            objects, right, given = (counts[of, number] for of in ("objects", "right", "given"))
            own = precision[:, :, number]
            classes.append(
                DetectionClass(
                    label=label,
                    objects=objects,
                    ap=float(own.mean()) if objects else None,
                    ap50=float(own[_HALF].mean()) if objects else None,
                    precision=right / given if given else None,
                    recall=right / objects if objects else None,
                    curve50=own[_HALF].tolist() if objects else [],
                )
            )
        judged = precision[:, :, known]
        return DetectionFigures(
            map=_mean(judged),
            map50=_mean(judged[_HALF]),
            map75=_mean(judged[_THREE_QUARTERS]),
            mar100=_mean(recall[:, known]),
            objects=sum(each.objects for each in classes),
            boxes=len(self._found),
            other_boxes=self._others,
            classes=classes,
        )

    def _coco(self, annotations: list[dict[str, Any]]) -> Any:
        from pycocotools.coco import COCO

        coco: Any = COCO()
        coco.dataset = {
            "images": [{"id": number} for number in self._images],
            "categories": [
                {"id": number, "name": label} for label, number in self._numbers.items()
            ],
            # An id of 0 would count as no match.
            "annotations": [{"id": number, **each} for number, each in enumerate(annotations, 1)],
        }
        coco.createIndex()
        return coco

    def _counts(self, judge: Any) -> Counter[tuple[str, int]]:
        """Objects, boxes and right boxes of each class, at an overlap of half."""
        counts: Counter[tuple[str, int]] = Counter()
        whole = judge.params.areaRng[_ALL_SIZES]
        for image in judge.evalImgs:
            if image is None or image["aRng"] != whole:
                continue
            number = image["category_id"] - 1
            judged = image["dtIgnore"][_HALF] == 0
            counts["objects", number] += int((image["gtIgnore"] == 0).sum())
            counts["given", number] += int(judged.sum())
            counts["right", number] += int(((image["dtMatches"][_HALF] > 0) & judged).sum())
        return counts


def _mean(array: Any) -> float:
    return float(array.mean()) if array.size else 0.0
