"""The report of an evaluation, for programs; `show` writes it for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

from fingerpost.deploy.evaluation.figures.detection import DetectionFigures
from fingerpost.deploy.evaluation.figures.embedding import EmbeddingFigures
from fingerpost.deploy.evaluation.limits import LimitResult, judge
from fingerpost.deploy.evaluation.run import FailedImage
from fingerpost.deploy.load_test.measuring.report import Latency

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fingerpost.deploy.evaluation.figures.labels import ClassificationFigures, MultilabelFigures
    from fingerpost.deploy.evaluation.figures.regression import RegressionFigures
    from fingerpost.deploy.evaluation.figures.segmentation import SegmentationFigures
    from fingerpost.deploy.evaluation.judges import Judge
    from fingerpost.deploy.evaluation.run import Run

    Figures: TypeAlias = (
        ClassificationFigures
        | MultilabelFigures
        | DetectionFigures
        | SegmentationFigures
        | EmbeddingFigures
        | RegressionFigures
    )

__all__ = ["Report", "make_report"]

_SHOWN = 5


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """How good a model is, and how fast it answered.

    Attributes:
        model: its name.
        versions: how many images each version answered; one version, unless it changed meanwhile.
        task: what it answers.
        local: whether it ran in this process, without a cluster.
        images: how many were asked for: the sum of `answered` and those in `failed`.
        answered: images whose answer is in the figures.
        failed: images that are in no figure, and why.
        seconds: from the first request to the last answer, without loading the model.
        images_per_s: answered images a second.
        concurrency: images in flight.
        latency_ms: of each answered image, from its request to its answer, with that many in
            flight.
        workers: how many images each worker answered.
        figures: those of the task.
        limits: the figures that had to reach a value.
        notes: remarks that are needed to read the figures.
    """

    model: str
    versions: dict[str, int]
    task: str
    local: bool
    images: int
    answered: int
    failed: list[FailedImage]
    seconds: float
    images_per_s: float
    concurrency: int
    latency_ms: Latency
    workers: dict[str, int]
    figures: Figures
    limits: list[LimitResult]
    notes: list[str]

    @property
    def reached(self) -> bool:
        """Whether every limit is reached."""
        return all(each.reached for each in self.limits)


def make_report(
    run: Run,
    judged: Judge,
    *,
    model: str,
    local: bool,
    concurrency: int,
    limits: Mapping[str, float],
    notes: tuple[str, ...] = (),
) -> Report:
    """The report of a run with at least one answer."""
    figures = judged.figures()
    return Report(
        model=model,
        versions=dict(run.versions.most_common()),
        task=judged.task,
        local=local,
        images=run.answered + len(run.failed),
        answered=run.answered,
        failed=run.failed,
        seconds=round(run.seconds, 3),
        images_per_s=round(run.answered / max(run.seconds, 1e-9), 2),
        concurrency=concurrency,
        latency_ms=Latency.of(run.latency),
        workers=dict(run.workers.most_common()),
        figures=figures,
        limits=judge(limits, figures),
        notes=[*_notes(run, judged, figures), *notes],
    )


def _notes(run: Run, judged: Judge, figures: Figures) -> Iterator[str]:
    if len(run.versions) > 1:
        yield (
            "several versions answered, and the figures are of all of them together: name one, "
            "such as MODEL@3"
        )
    if unseen := judged.unseen():
        more = f" and {len(unseen) - _SHOWN:,} more" if len(unseen) > _SHOWN else ""
        yield (
            f"no answer has {', '.join(map(repr, unseen[:_SHOWN]))}{more}: if the model does not "
            "know it, its labels have another name for it"
        )
    if isinstance(figures, DetectionFigures) and figures.other_boxes:
        yield (
            f"{figures.other_boxes:,} boxes are of classes that are not among the categories of "
            "the annotations; they are not judged"
        )
    if isinstance(figures, EmbeddingFigures) and figures.alone:
        yield (
            f"{figures.alone:,} images are the only answered ones of their class, so that no other "
            "could be found: they are in no share"
        )
