"""The report of an evaluation, for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fingerpost.deploy.console import out, table_of_figures
from fingerpost.deploy.evaluation.figures.detection import DetectionFigures
from fingerpost.deploy.evaluation.figures.embedding import EmbeddingFigures
from fingerpost.deploy.evaluation.figures.labels import ClassificationFigures, MultilabelFigures
from fingerpost.deploy.evaluation.figures.regression import RegressionFigures
from fingerpost.deploy.evaluation.limits import OPTIONS

if TYPE_CHECKING:
    from rich.table import Table

    from fingerpost.deploy.evaluation.report import Report

__all__ = ["show"]

# A terminal's page: of more classes the worst are shown, and all are in the JSON.
_CLASSES: Final = 30
_CONFUSIONS: Final = 5
_FAILED: Final = 10


def show(report: Report) -> None:
    """Print the figures, the classes, what failed, and the latency."""
    version = "" if len(report.versions) != 1 else f"@{next(iter(report.versions))}"
    where = " in this process" if report.local else f" by {len(report.workers)} workers"
    if len(report.workers) == 1:
        where = " by 1 worker"
    out.print(
        f"{report.model}{version}, {report.task}: {report.answered:,} of {report.images:,} images "
        f"answered{where} in {report.seconds:.1f} s"
    )
    out.print()
    out.print(_figures(report))
    out.print()
    _print_classes(report.figures)
    _print_mistakes(report.figures)
    out.print()
    out.print(_latency(report))
    if report.failed:
        out.print()
        images = "image" if len(report.failed) == 1 else "images"
        out.print(f"{len(report.failed):,} {images} failed, and in no figure:")
        for each in report.failed[:_FAILED]:
            out.print(f"    {each.image}: {each.message}")
        if len(report.failed) > _FAILED:
            out.print(f"    and {len(report.failed) - _FAILED:,} more: see --json FILE")
    for note in report.notes:
        out.print()
        out.print(f"Note: {note}.")
    for limit in report.limits:
        out.print()
        what = "reached" if limit.reached else "NOT REACHED"
        option = f"{OPTIONS[limit.figure]} {limit.least if limit.most is None else limit.most:g}"
        value = "not known" if limit.value is None else f"{limit.value:.4f}"
        out.print(f"{what}: {limit.figure} is {value}, {option}")


def _figures(report: Report) -> Table:
    figures = report.figures
    table = table_of_figures("", "")
    rows: list[tuple[str, float | None]]
    if isinstance(figures, ClassificationFigures):
        rows = [
            ("top-1", figures.top1),
            ("top-5", figures.top5),
            ("F1, mean of classes", figures.f1),
        ]
    elif isinstance(figures, MultilabelFigures):
        rows = [
            ("all labels right", figures.exact),
            ("precision", figures.precision),
            ("recall", figures.recall),
            ("F1", figures.f1_micro),
            ("F1, mean of classes", figures.f1),
        ]
    elif isinstance(figures, DetectionFigures):
        rows = [
            ("mAP@[.5:.95]", figures.map),
            ("mAP50", figures.map50),
            ("mAP75", figures.map75),
            ("AR, 100 boxes an image", figures.mar100),
        ]
        for name, value in rows:
            table.add_row(name, _share(value))
        table.add_row("objects", f"{figures.objects:,}")
        table.add_row("boxes", f"{figures.boxes:,}")
        rows = []
    elif isinstance(figures, EmbeddingFigures):
        table.add_row("dimensions", f"{figures.dimensions:,}")
        rows = [("recall@1", figures.recall1), ("recall@5", figures.recall5)]
    elif isinstance(figures, RegressionFigures):
        table.add_row("MAE", _number(figures.mae))
        table.add_row("RMSE", _number(figures.rmse))
        table.add_row("R2", _number(figures.r2))
        rows = []
    else:
        rows = [("mean IoU", figures.iou), ("pixels right", figures.accuracy)]
    for name, value in rows:
        table.add_row(name, _share(value))
    table.add_row("images/s", f"{report.images_per_s:,.1f}")
    return table


def _print_classes(figures: Any) -> None:
    columns: tuple[str, ...]
    if isinstance(figures, RegressionFigures):
        _print_values(figures)
        return
    if isinstance(figures, EmbeddingFigures):
        columns = ("images", "recall@1", "recall@5")
        rows = [
            (each.recall1 or 0.0, _row(each.label, each.images, each.recall1, each.recall5)[1])
            for each in figures.classes
        ]
    elif isinstance(figures, ClassificationFigures | MultilabelFigures):
        columns = ("images", "precision", "recall", "F1")
        rows = [
            _row(each.label, each.images, each.precision, each.recall, each.f1)
            for each in figures.classes
        ]
    elif isinstance(figures, DetectionFigures):
        columns = ("objects", "precision", "recall", "AP50", "AP")
        rows = [
            _row(each.label, each.objects, each.precision, each.recall, each.ap50, each.ap)
            for each in figures.classes
        ]
    else:
        columns = ("pixels", "precision", "recall", "IoU")
        rows = [
            _row(each.label, each.pixels, each.precision, each.recall, each.iou)
            for each in figures.classes
            if each.iou is not None
        ]
    table = table_of_figures("class", *columns)
    shown = rows
    if len(rows) > _CLASSES:
        shown = sorted(rows, key=lambda row: row[0])[:_CLASSES]
    for _, cells in shown:
        table.add_row(*cells)
    out.print(table)
    if len(rows) > _CLASSES:
        out.print(f"The {_CLASSES} worst of {len(rows):,} classes; all are in --json FILE.")


def _print_values(figures: RegressionFigures) -> None:
    """Each number of the model; and the images with the largest error, where it is one number."""
    table = table_of_figures("value", "MAE", "RMSE", "R2", "bias")
    for each in figures.values:
        table.add_row(each.label, *map(_number, (each.mae, each.rmse, each.r2, each.bias)))
    out.print(table)
    if len(figures.values) > 1:
        return
    worst = sorted(figures.images, key=lambda each: -abs(each.values[0] - each.targets[0]))
    out.print()
    out.print("Largest errors:")
    for image in worst[:_CONFUSIONS]:
        out.print(f"    {image.image}: {_number(image.values[0])} for {_number(image.targets[0])}")


def _print_mistakes(figures: Any) -> None:
    if isinstance(figures, ClassificationFigures):
        pairs = Counter((each.label, each.predicted) for each in figures.mistakes)
    elif isinstance(figures, EmbeddingFigures):
        pairs = Counter((each.label, each.nearest_label) for each in figures.mistakes)
    else:
        return
    if pairs:
        taken = "taken for" if isinstance(figures, ClassificationFigures) else "nearest to"
        shown = ", ".join(
            f"{label} {taken} {other} ({count:,})"
            for (label, other), count in pairs.most_common(_CONFUSIONS)
        )
        out.print()
        out.print(f"Most frequent mistakes: {shown}")


def _row(label: str, count: int, *shares: float | None) -> tuple[float, list[str]]:
    """A class's cells, before them the last figure, by which the worst are found."""
    return shares[-1] or 0.0, [label, f"{count:,}", *map(_share, shares)]


def _latency(report: Report) -> Table:
    latency = report.latency_ms
    table = table_of_figures(
        f"ms, {report.concurrency} in flight", "p50", "p90", "p99", "p99.9", "max"
    )
    figures = (latency.p50, latency.p90, latency.p99, latency.p99_9, latency.max)
    table.add_row("from request to answer", *(f"{each:,.1f}" for each in figures))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
