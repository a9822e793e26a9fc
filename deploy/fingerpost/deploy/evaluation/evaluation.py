"""The steps of an evaluation: ask what the model answers, check the truth, send, and report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.evaluation.judges import ALL_LABELS, judge_for, labels_of
from fingerpost.deploy.evaluation.limits import check_limit, check_limits
from fingerpost.deploy.evaluation.report import make_report
from fingerpost.deploy.evaluation.run import FailedImage, send_all
from fingerpost.errors import ConfigurationError, ImageError, InvalidRequest, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fingerpost.client.tasks.results import TaskResult
    from fingerpost.deploy.evaluation.judges import Truth
    from fingerpost.deploy.evaluation.report import Report
    from fingerpost.deploy.evaluation.run import Target

__all__ = ["EvaluationConfig", "evaluate"]

# So many images that no worker can read are taken as a sign that none is an image.
_TRIED: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """How a model is evaluated.

    Attributes:
        concurrency: images in flight, 1 or more. More fills batches and all workers, and each image
            waits longer. The default of 8 keeps three workers busy; 1 measures the latency of an
            image alone.
        upright: see `CocoFile.read`. The default is off: boxes are in pixels as files have them.
        limits: of figures, by their names: the least value of a share, the most of an error. The
            default is none.
        notes: remarks for the report.
    """

    concurrency: int = 8
    upright: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigurationError(f"concurrency is {self.concurrency}: it must be 1 or more")
        for figure, limit in self.limits.items():
            check_limit(figure, limit)


async def evaluate(
    target: Target,
    truth: Truth,
    config: EvaluationConfig,
    *,
    model: str,
    labels: tuple[str, ...] | None = None,
    local: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Evaluate a model.

    Args:
        target: the model.
        truth: the images, and what is true of them.
        config: see `EvaluationConfig`.
        model: the model's name, for the report.
        labels: its labels; None where they are not known.
        local: whether it runs in this process.
        progress: called with the number of images done.

    Raises:
        WrongTask: the model answers another task than the truth is for.
        ConfigurationError: a class that the model lacks, or a limit that is not of its task.
        FingerpostError: no image got an answer.
    """
    first = await _first_answer(target, [each.path for each in truth.images])
    labels = labels or labels_of(first)
    judged = judge_for(truth, first, labels, upright=config.upright)
    check_limits(config.limits, judged.task)
    run = await send_all(
        target,
        judged.paths,
        judged.count,
        top=judged.top,
        concurrency=config.concurrency,
        in_thread=judged.slow,
        progress=progress,
    )
    if not run.answered:
        raise InvalidRequest(
            f"none of {len(run.failed):,} images has an answer that counts; the first one, "
            f"{run.failed[0].image}: {run.failed[0].message}"
        )
    return make_report(
        run,
        judged,
        model=model,
        local=local,
        concurrency=config.concurrency,
        limits=config.limits,
        notes=config.notes,
    )


async def _first_answer(target: Target, paths: list[str]) -> TaskResult:
    """The answer for the first image that has one, with all labels; it opens connections too.

    Raises:
        FingerpostError: an error that is not the image's own.
        InvalidRequest: none of the first 20 images has an answer.
    """
    tried = paths[:_TRIED]
    failed = []
    for path in tried:
        try:
            return await target.infer(path, top=ALL_LABELS)
        except (ImageError, InvalidRequest, ModelFailed) as error:
            failed.append(FailedImage.of(path, error))
    raise InvalidRequest(
        f"no image of the first {len(tried)} has an answer; the last one, {failed[-1].image}: "
        f"{failed[-1].message}"
    )
