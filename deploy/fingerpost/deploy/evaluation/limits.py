"""The figures that a model must reach, for a rollout that asks whether it is good enough."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FIGURES_OF", "OPTIONS", "LimitResult", "check_limit", "check_limits", "judge"]

FIGURES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "classification": ("top1", "top5", "f1"),
    "multilabel": ("f1",),
    "detection": ("map", "map50"),
    "segmentation": ("iou",),
    "embedding": ("recall1", "recall5"),
    "regression": ("mae", "rmse", "r2"),
}
"""The figures of each task that can have a limit."""

OPTIONS: Final[Mapping[str, str]] = {
    "top1": "--min-top1",
    "top5": "--min-top5",
    "f1": "--min-f1",
    "map": "--min-map",
    "map50": "--min-map50",
    "iou": "--min-iou",
    "recall1": "--min-recall1",
    "recall5": "--min-recall5",
    "mae": "--max-mae",
    "rmse": "--max-rmse",
    "r2": "--min-r2",
}
"""The option that sets the limit of each figure."""


# Errors, in the unit of the targets: the limit is the most that is good enough.
_ERRORS: Final = frozenset({"mae", "rmse"})

# pycocotools makes 0.9999999999999998 of a mean of ones.
_ROUNDING: Final = 1e-9


class LimitResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A figure, the limit that was asked for, and whether it is reached.

    Attributes:
        least: the limit of a share.
        most: the limit of an error, instead.
        value: of the figure; None where it has none, as R2 of equal targets.
    """

    figure: str
    least: float | None = None
    most: float | None = None
    value: float | None
    reached: bool


def check_limit(figure: str, limit: float) -> None:
    """Check that a limit can be one of this figure.

    Raises:
        ConfigurationError: it cannot.
    """
    if figure in _ERRORS:
        if not (math.isfinite(limit) and limit >= 0):
            raise ConfigurationError(
                f"{OPTIONS[figure]} {limit:g}: it must be 0 or more, in the unit of the targets"
            )
    elif figure == "r2" and limit < 0 and math.isfinite(limit):
        return  # worse than the mean of the targets, but somebody's limit
    elif not 0 <= limit <= 1:
        raise ConfigurationError(
            f"{OPTIONS[figure]} {limit:g}: it must be 0 to 1, such as 0.9 for 90 %"
        )


def check_limits(limits: Mapping[str, float], task: str) -> None:
    """Check that the task has each figure.

    Raises:
        ConfigurationError: it lacks one.
    """
    known = FIGURES_OF[task]
    for figure in limits:
        if figure not in known:
            raise ConfigurationError(
                f"{OPTIONS[figure]} is not for {task}: use "
                f"{' or '.join(OPTIONS[each] for each in known)}"
            )


def judge(limits: Mapping[str, float], figures: object) -> list[LimitResult]:
    """Compare each limit with its figure; equal, but for rounding, is reached."""
    found = []
    for figure, limit in limits.items():
        known = getattr(figures, figure)
        value = None if known is None else float(known)
        if figure in _ERRORS:
            reached = value is not None and value < limit + _ROUNDING
            result = LimitResult(figure=figure, most=limit, value=value, reached=reached)
        else:
            reached = value is not None and value > limit - _ROUNDING
            result = LimitResult(figure=figure, least=limit, value=value, reached=reached)
        found.append(result)
    return found
