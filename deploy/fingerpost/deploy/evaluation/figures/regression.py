"""The figures of regression: how far numbers are from those that are true."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from fingerpost.errors import BadAnswer

__all__ = ["Measured", "RegressionFigures", "RegressionTally", "ValueFigures"]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """An image with the numbers that are true of it, and those that the model gave."""

    image: str
    targets: tuple[float, ...]
    values: tuple[float, ...]


class ValueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How close one number of a model is.

    Attributes:
        label: its name, or its place from 0.
        mae: the mean of the absolute errors.
        rmse: the root of the mean of the squared errors, which large ones raise more.
        r2: the share of the targets' variance that the model explains; 0 is what their mean would
            reach, and below it is worse than that. None where all targets are equal.
        bias: the mean of the errors: above 0 the model says too much.
    """

    label: str
    mae: float
    rmse: float
    r2: float | None
    bias: float


class RegressionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How close a model's numbers are.

    Attributes:
        mae, rmse, r2: the means over its numbers (scikit-learn's `uniform_average`), which are of
            use only where these have one unit; `r2` is None where it is so for one of them.
        values: of each number.
        images: each image's targets and values, in the order of the file.
    """

    mae: float
    rmse: float
    r2: float | None
    values: list[ValueFigures]
    images: list[Measured]


class RegressionTally:
    """Keeps the numbers of each image.

    Args:
        labels: the names of the numbers.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self._labels = tuple(labels)
        self._images: dict[int, Measured] = {}

    def add(
        self, place: int, image: str, targets: Sequence[float], values: Sequence[float]
    ) -> None:
        """Count an image, which has this place among all. Raises `BadAnswer` for a NaN or infinity.

        Args:
            place: by which the images are sorted.
            image: its path.
            targets: what is true.
            values: what the model gave, in the same order.
        """
        numbers = tuple(float(each) for each in values)
        if not all(map(math.isfinite, numbers)):
            raise BadAnswer(f"the model gave {list(numbers)}, which are not finite numbers")
        self._images[place] = Measured(image=image, targets=tuple(targets), values=numbers)

    def figures(self) -> RegressionFigures:
        """The figures; after at least one image."""
        images = [self._images[place] for place in sorted(self._images)]
        values = [
            _figures(
                label,
                [each.targets[number] for each in images],
                [each.values[number] for each in images],
            )
            for number, label in enumerate(self._labels)
        ]
        r2 = [each.r2 for each in values if each.r2 is not None]
        return RegressionFigures(
            mae=_mean([each.mae for each in values]),
            rmse=_mean([each.rmse for each in values]),
            r2=_mean(r2) if len(r2) == len(values) else None,
            values=values,
            images=images,
        )


def _figures(label: str, targets: list[float], values: list[float]) -> ValueFigures:
    errors = [value - target for target, value in zip(targets, values, strict=True)]
    squares = math.fsum(each * each for each in errors)
    middle = _mean(targets)
    variance = math.fsum((each - middle) ** 2 for each in targets)
    return ValueFigures(
        label=label,
        mae=_mean([abs(each) for each in errors]),
        rmse=math.sqrt(squares / len(errors)),
        r2=1 - squares / variance if variance else None,
        bias=_mean(errors),
    )


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)
