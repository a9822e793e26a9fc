"""The figures of classifiers: one label for each image, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from fingerpost.client.wire import Prediction

__all__ = [
    "ClassFigures",
    "ClassificationFigures",
    "ClassificationTally",
    "Mistake",
    "MultilabelFigures",
    "MultilabelTally",
]

_TOP: Final = 5


class ClassFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How well one class is recognized.

    Attributes:
        label: its name.
        images: how many images have it.
        precision: the share of right ones among the images that the model gives the label to; None
            where it gives it to none.
        recall: the share of the images with this label to which the model gives it; None where
            there are none.
        f1: the harmonic mean of the two: 2 * right / (given + images).
    """

    label: str
    images: int
    precision: float | None
    recall: float | None
    f1: float

    @classmethod
    def of(cls, label: str, *, right: int, given: int, images: int) -> ClassFigures:
        """The figures of a class; `given` or `images` must be above 0."""
        return cls(
            label=label,
            images=images,
            precision=right / given if given else None,
            recall=right / images if images else None,
            f1=2 * right / (given + images),
        )


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose best label is wrong.

    Attributes:
        image: its path.
        label: the right label.
        predicted, score: the best label that the model gave, and its score.
    """

    image: str
    label: str
    predicted: str
    score: float


class ClassificationFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a classifier, over the answered images.

    Attributes:
        top1, top5: the share of images whose label is the best one, and is among the best five.
        f1: the mean over the classes that have images (macro).
        classes: each class that an image has, sorted; then those that were only predicted.
        confusion: how many images; row: the right class, column: the predicted one, both in the
            order of `classes`.
        mistakes: the images whose best label is wrong, by their paths.
    """

    top1: float
    top5: float
    f1: float
    classes: list[ClassFigures]
    confusion: list[list[int]]
    mistakes: list[Mistake]


class ClassificationTally:
    """Counts the answers of a classifier."""

    def __init__(self) -> None:
        self._pairs: Counter[tuple[str, str]] = Counter()
        self._images = self._top1 = self._top5 = 0
        self._mistakes: list[Mistake] = []

    def add(self, image: str, label: str, predictions: Sequence[Prediction]) -> None:
        """Count one answer; `predictions` are best first, five or all of them."""
        best = predictions[0]
        self._images += 1
        self._top1 += best.label == label
        self._top5 += any(each.label == label for each in predictions[:_TOP])
        self._pairs[label, best.label] += 1
        if best.label != label:
            mistake = Mistake(image=image, label=label, predicted=best.label, score=best.score)
            self._mistakes.append(mistake)

    def figures(self) -> ClassificationFigures:
        """The figures; after at least one answer."""
        true, given = Counter[str](), Counter[str]()
        for (label, predicted), count in self._pairs.items():
            true[label] += count
            given[predicted] += count
        names = [*sorted(true), *sorted(given.keys() - true.keys())]
        classes = [
            ClassFigures.of(
                name, right=self._pairs[name, name], given=given[name], images=true[name]
            )
            for name in names
        ]
        return ClassificationFigures(
            top1=self._top1 / self._images,
            top5=self._top5 / self._images,
            f1=_mean_f1(classes),
            classes=classes,
            confusion=[[self._pairs[row, column] for column in names] for row in names],
            mistakes=sorted(self._mistakes, key=lambda each: each.image),
        )


class MultilabelFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a model that gives several labels, over the answered images.

    Attributes:
        exact: the share of images that got all of their labels and no other one.
        precision, recall: over all labels of all images (micro); precision is None where the model
            gave none.
        f1: the mean over the classes that images have (macro).
        f1_micro: of `precision` and `recall`.
        classes: each class that an image has, sorted; then those that were only predicted.
    """

    exact: float
    precision: float | None
    recall: float | None
    f1: float
    f1_micro: float
    classes: list[ClassFigures]


class MultilabelTally:
    """Counts the answers of a model that gives several labels."""

    def __init__(self) -> None:
        self._true, self._given, self._right = Counter[str](), Counter[str](), Counter[str]()
        self._images = self._exact = 0

    def add(self, labels: Collection[str], predicted: Collection[str]) -> None:
        """Count one answer: the labels of an image, and those that the model gave it."""
        wanted, got = set(labels), set(predicted)
        self._images += 1
        self._exact += wanted == got
        self._true.update(wanted)
        self._given.update(got)
        self._right.update(wanted & got)

    def figures(self) -> MultilabelFigures:
        """The figures; after at least one answer."""
        true, given, right = self._true, self._given, self._right
        names = [*sorted(true), *sorted(given.keys() - true.keys())]
        classes = [
            ClassFigures.of(name, right=right[name], given=given[name], images=true[name])
            for name in names
        ]
        whole = ClassFigures.of("", right=right.total(), given=given.total(), images=true.total())
        return MultilabelFigures(
            exact=self._exact / self._images,
            precision=whole.precision,
            recall=whole.recall,
            f1=_mean_f1(classes),
            f1_micro=whole.f1,
            classes=classes,
        )


def _mean_f1(classes: Sequence[ClassFigures]) -> float:
    known = [each.f1 for each in classes if each.images]
    return sum(known) / len(known)
