"""A row of scores, and the labels of its classes. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from fingerpost.client.foreign.values import TOLERANCE, NotReadError, is_number, kind_of
from fingerpost.client.wire import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

    from fingerpost.client.foreign.metadata import ForeignModel

__all__ = ["check_count", "labels_of", "read_row"]

# More classes than any classifier's: ImageNet's largest has 21,841, and reading takes 1 us each.
_MAX_SCORES: Final = 200_000


def check_count(values: Sized) -> None:
    """Raise `NotReadError` for more scores than any classifier has."""
    if len(values) > _MAX_SCORES:
        raise NotReadError(f"it has {len(values)} scores, more than {_MAX_SCORES}")


def read_row(
    scores: Any, model: ForeignModel, labels: Sequence[str], name: str = "scores"
) -> list[Prediction]:
    """The labels of one row of scores, in its order.

    Args:
        scores: what should be a list of numbers.
        model: says whether they are logits.
        labels: one for each; without any they are numbered.
        name: what the row is, for errors.

    Raises:
        NotReadError: it is not a row of finite numbers, has another length than the labels, or is
            not of probabilities.
    """
    if isinstance(scores, list):
        check_count(scores)
    if not isinstance(scores, list) or not scores or not all(map(is_number, scores)):
        raise NotReadError(f"{name} is not a row of numbers")
    try:
        numbers = [float(each) for each in scores]
    except OverflowError:
        numbers = [math.inf]
    if not all(map(math.isfinite, numbers)):
        raise NotReadError(f"{name} has a number that is not finite")
    if labels and len(labels) != len(numbers):
        raise NotReadError(
            f"{name} has {len(numbers)} scores for {len(labels)} labels (metadata labels, or "
            "ClientConfig.labels)"
        )
    if model.logits:
        most = max(numbers)
        powers = [math.exp(each - most) for each in numbers]
        total = sum(powers)
        numbers = [each / total for each in powers]
    elif min(numbers) < -TOLERANCE or max(numbers) > 1 + TOLERANCE:
        raise NotReadError(
            f"{name} has scores from {min(numbers):g} to {max(numbers):g}, which are not "
            "probabilities: if they are logits, say so in the metadata (scores=logits)"
        )
    names = labels or [str(each) for each in range(len(numbers))]
    return [Prediction(*each) for each in zip(names, numbers, strict=True)]


def labels_of(classes: Sequence[Any], labels: Sequence[str], name: str) -> list[str]:
    """The labels of classes, which are labels or their numbers.

    Args:
        classes: what an answer says.
        labels: by their numbers; empty where they are not known.
        name: what the classes are, for errors.

    Raises:
        NotReadError: there are none, or of both kinds; one is neither a text nor a whole number, or
            there is no label of that number.
    """
    if not classes:
        raise NotReadError(f"{name} is empty")
    found = []
    for each in classes:
        if isinstance(each, str) and each:
            found.append(each)
        elif type(each) is not int:
            raise NotReadError(f"{name} has {kind_of(each)}, not a label or its number")
        elif not 0 <= each < (len(labels) or 1 << 31):
            raise NotReadError(f"{name} has class {str(each)[:20]}, of {len(labels)} labels")
        else:
            found.append(labels[each] if labels else str(each))
    if len({type(each) for each in classes}) > 1:
        raise NotReadError(f"{name} has texts and numbers: give one of them")
    return found
