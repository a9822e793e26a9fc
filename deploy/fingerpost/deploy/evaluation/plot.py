"""A plot of an evaluation: the confusion matrix, a curve or bars for each class, or points."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Final

from fingerpost.deploy.evaluation.figures.detection import DetectionFigures
from fingerpost.deploy.evaluation.figures.embedding import EmbeddingFigures
from fingerpost.deploy.evaluation.figures.labels import ClassificationFigures, MultilabelFigures
from fingerpost.deploy.evaluation.figures.regression import RegressionFigures

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.deploy.evaluation.report import Report

__all__ = ["draw"]

# A legend of more hides the plot.
_NAMED: Final = 15
_PANELS: Final = 6


def draw(path: Path, report: Report) -> None:
    """Draw the figures into a file, `.png` or `.svg`.

    A classifier's is the confusion matrix; a detector's, precision against recall at an overlap of
    half; of regression, values against targets; bars for each class for the other tasks.
    """
    figures = report.figures
    if isinstance(figures, ClassificationFigures):
        import numpy as np

        from fingerpost.worker.training.report import Evaluation, draw_confusion

        labels = tuple(each.label for each in figures.classes)
        confusion = np.asarray(figures.confusion, np.int64)
        draw_confusion(path, Evaluation(labels=labels, confusion=confusion))
        return
    title = f"{report.model}: {report.task}, {report.answered:,} images"
    if isinstance(figures, DetectionFigures):
        figure = _curves(figures, f"{title}, mAP50 {figures.map50:.1%}, mAP {figures.map:.1%}")
    elif isinstance(figures, RegressionFigures):
        figure = _points(figures, f"{title}, MAE {figures.mae:.4g}")
    elif isinstance(figures, MultilabelFigures | EmbeddingFigures):
        if isinstance(figures, MultilabelFigures):
            names, title = ("precision", "recall"), f"{title}, F1 {figures.f1:.1%}"
        else:
            names, title = ("recall1", "recall5"), f"{title}, recall@1 {figures.recall1:.1%}"
        bars = {name: [getattr(each, name) or 0.0 for each in figures.classes] for name in names}
        figure = _bars(tuple(each.label for each in figures.classes), bars, title)
    else:
        known = [each for each in figures.classes if each.iou is not None]
        bars = {"IoU": [each.iou or 0.0 for each in known]}
        labels = tuple(each.label for each in known)
        figure = _bars(labels, bars, f"{title}, mean IoU {figures.iou:.1%}")
    with warnings.catch_warnings():
        # Matplotlib's font lacks Chinese and others; the names are whole in the JSON.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, dpi=100)


def _curves(figures: DetectionFigures, title: str) -> Any:
    from matplotlib.figure import Figure  # not pyplot: no display, no global state

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.add_subplot()
    recalls = [step / 100 for step in range(101)]
    known = [each for each in figures.classes if each.curve50]
    named = len(known) <= _NAMED
    for each in known:
        style: dict[str, Any] = {"color": "lightgray"}
        if named:
            style = {"label": f"{_plain(each.label)} {each.ap50 or 0:.1%}"}
        axes.plot(recalls, each.curve50, **style)
    if known:
        columns = zip(*(each.curve50 for each in known), strict=True)
        mean = [sum(column) / len(known) for column in columns]
        axes.plot(recalls, mean, color="black", linewidth=2, label=f"mean {figures.map50:.1%}")
        axes.legend(loc="lower left")
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    return figure


def _points(figures: RegressionFigures, title: str) -> Any:
    """A panel for each number of the model; the first ones, of many."""
    from matplotlib.figure import Figure

    shown = figures.values[:_PANELS]
    figure = Figure(figsize=(7, 6 * len(shown)), layout="constrained")
    for number, each in enumerate(shown):
        axes = figure.add_subplot(len(shown), 1, number + 1)
        targets = [image.targets[number] for image in figures.images]
        values = [image.values[number] for image in figures.images]
        axes.scatter(targets, values, s=12, alpha=0.5)
        ends = min(*targets, *values), max(*targets, *values)
        axes.plot(ends, ends, color="gray", linewidth=1)
        axes.set_xlabel(f"target of {each.label}", parse_math=False)
        axes.set_ylabel("value of the model")
        axes.grid(alpha=0.3)
    figure.suptitle(title, parse_math=False)
    return figure


def _bars(labels: tuple[str, ...], bars: dict[str, list[float]], title: str) -> Any:
    from matplotlib.figure import Figure

    inches = min(2 + 0.3 * len(labels), 40)
    figure = Figure(figsize=(8, inches), layout="constrained")
    axes = figure.add_subplot()
    height = 0.8 / len(bars)
    places = range(len(labels))
    for number, (name, values) in enumerate(bars.items()):
        axes.barh([place + number * height for place in places], values, height, label=name)
    middle = height * (len(bars) - 1) / 2
    axes.set_yticks([place + middle for place in places], list(labels), parse_math=False)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1))
    axes.set_title(title, parse_math=False)
    axes.legend()
    axes.grid(alpha=0.3, axis="x")
    return figure


def _plain(text: str) -> str:
    """A label for a legend, which reads `$` as mathematics, and leaves out what begins with `_`."""
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")
