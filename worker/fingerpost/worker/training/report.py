"""How well the model does: `report.json` for programs, `confusion.png` for people."""

from __future__ import annotations

import json
import math
import platform
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Evaluation", "described_accuracy", "draw_confusion", "library_versions", "write_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The model's answers to the validation images.

    Attributes:
        labels: the classes' names.
        confusion: int64 `[classes, classes]`, the number of images; row: the true class, column:
            the class with the highest score.
    """

    labels: tuple[str, ...]
    confusion: NDArray[np.int64]

    @classmethod
    def of(
        cls, labels: tuple[str, ...], truth: Sequence[int], predicted: Sequence[int]
    ) -> Evaluation:
        """Count the answers; `truth` and `predicted` are indices into `labels`, one per image."""
        confusion = np.zeros((len(labels), len(labels)), np.int64)
        np.add.at(confusion, (np.asarray(truth), np.asarray(predicted)), 1)
        return cls(labels=labels, confusion=confusion)

    @property
    def accuracy(self) -> float:
        """Share of the images whose best class is right, 0 to 1."""
        return float(self.confusion.trace() / self.confusion.sum())

    @property
    def guessing(self) -> float:
        """The accuracy of always answering the most frequent class, 0 to 1."""
        return float(self.confusion.sum(axis=1).max() / self.confusion.sum())

    @property
    def learned(self) -> bool:
        """Whether the accuracy cannot be explained by guessing.

        Guesses would be right that often, or more often, with a probability (binomial) of 5 % at
        most; all right counts as learned however few the images are.
        """
        images, right = int(self.confusion.sum()), int(self.confusion.trace())
        chance = self.guessing
        tail = sum(
            math.comb(images, k) * chance**k * (1 - chance) ** (images - k)
            for k in range(right, images + 1)
        )
        return right == images or tail <= 0.05

    def classes(self) -> list[dict[str, str | int | float | None]]:
        """Label, images, precision and recall of each class.

        Precision is the share of right answers among the images that the model puts into the
        class, None where it puts none; recall is the share of the class's images that it finds.
        """
        right = self.confusion.diagonal().tolist()
        called = self.confusion.sum(axis=0).tolist()
        true = self.confusion.sum(axis=1).tolist()
        return [
            {
                "label": label,
                "validation_images": true[i],
                "precision": right[i] / called[i] if called[i] else None,
                "recall": right[i] / true[i] if true[i] else None,
            }
            for i, label in enumerate(self.labels)
        ]


def library_versions() -> dict[str, str]:
    """Version of Python and of each library that shapes a model."""
    versions = {"python": platform.python_version()}
    for name in ("fingerpost", "tensorflow", "tensorflow-cpu", "keras", "numpy", "pillow"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # TensorFlow goes by one of two names
            continue
    return versions


def write_report(path: Path, evaluation: Evaluation | None, facts: dict[str, Any]) -> None:
    """Write `facts` and the evaluation, if there is one, as JSON, UTF-8."""
    report = facts
    if evaluation is not None:
        report = {
            "accuracy": evaluation.accuracy,
            "accuracy_of_guessing": evaluation.guessing,
            "accuracy_of": "the validation images, which also chose the best epoch",
            **facts,
            "classes": evaluation.classes(),
            "confusion": evaluation.confusion.tolist(),
        }
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
    # The name of a skipped file may not be UTF-8.
    path.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `described_accuracy` reads of a report."""

    accuracy: float | None = None
    accuracy_of: str = ""
    accuracy_of_original: float | None = None


def described_accuracy(path: Path) -> str | None:
    """The accuracy that a `report.json` tells, in words; None where there is none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_Report)
    except (OSError, msgspec.MsgspecError):
        return None
    if found.accuracy is None:
        return None
    before = found.accuracy_of_original
    original = "" if before is None else f" ({before:.2%} before it was quantized)"
    return f"accuracy {found.accuracy:.2%}{original} on {found.accuracy_of}"


def draw_confusion(path: Path, evaluation: Evaluation) -> None:
    """Draw the confusion matrix as PNG: rows are true classes, in shares of the row.

    The figure grows with the number of classes, to 40 inches (4,000 pixels), where names of 100
    classes stand apart. Beyond 30 classes the cells carry no numbers; beyond 200 only every n-th
    class is named.
    """
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    classes = len(evaluation.labels)
    counts = evaluation.confusion
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    inches = min(4 + 0.36 * classes, 40)
    figure = Figure(figsize=(inches + 1, inches), layout="constrained")
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes, shrink=0.6, label="share of the true class")
    ticks = range(0, classes, -(-classes // 200))
    names = [_short(evaluation.labels[i]) for i in ticks]
    size = 10 if classes <= 100 else 7
    axes.set_xticks(ticks, names, rotation=90, fontsize=size, parse_math=False)
    axes.set_yticks(ticks, names, fontsize=size, parse_math=False)
    axes.set(
        xlabel="first choice", ylabel="true class", title=f"accuracy {evaluation.accuracy:.1%}"
    )
    if classes <= 30:
        for row, column in zip(*counts.nonzero(), strict=True):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=colour)
    with warnings.catch_warnings():
        # Matplotlib's font lacks Chinese and others; the names are whole in report.json.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=100)


def _short(label: str) -> str:
    return label if len(label) <= 24 else label[:23] + "…"
