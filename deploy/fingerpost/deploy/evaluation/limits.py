"""The least figures that a model must reach, for a rollout that asks whether it is good enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FIGURES_OF", "OPTIONS", "LimitResult", "check_limits", "judge"]

FIGURES_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "classification": ("top1", "top5", "f1"),
    "multilabel": ("f1",),
    "detection": ("map", "map50"),
    "segmentation": ("iou",),
}
"""The figures of each task that can have a limit."""

OPTIONS: Final[Mapping[str, str]] = {
    "top1": "--min-top1",
    "top5": "--min-top5",
    "f1": "--min-f1",
    "map": "--min-map",
    "map50": "--min-map50",
    "iou": "--min-iou",
}
"""The option that sets the limit of each figure."""


# pycocotools makes 0.9999999999999998 of a mean of ones.
_ROUNDING: Final = 1e-9


class LimitResult(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, the least that was asked for, and whether it is reached."""

    figure: str
    least: float
    value: float
    reached: bool


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
    for figure, least in limits.items():
        value = float(getattr(figures, figure))
        found.append(
            LimitResult(figure=figure, least=least, value=value, reached=value > least - _ROUNDING)
        )
    return found
