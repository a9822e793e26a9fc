"""`fingerpost evaluate`: how good a model is on labelled images, and how fast."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import err
from fingerpost.deploy.model_argument import is_path, service_of
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.deploy.options.model import ModelOptions, takes_model_options
from fingerpost.deploy.output_files import ReportFiles
from fingerpost.errors import ConfigurationError, RegistryUnreachable

if TYPE_CHECKING:
    from fingerpost.client import Client
    from fingerpost.deploy.evaluation.evaluation import EvaluationConfig
    from fingerpost.deploy.evaluation.judges import Truth
    from fingerpost.deploy.evaluation.report import Report
    from fingerpost.worker.models.files import ModelFiles

__all__ = ["add_to"]

_LIMITS: Final = "Limits: exit status 3 if one is not reached"
NOT_REACHED: Final = 3
"""The exit status if a limit is not reached."""

# mAP hardly changes below this score.
_LOW: Final = 0.05


def _limit(text: str, metavar: str = "SHARE") -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=_LIMITS, show_default=False)


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(takes_model_options(evaluate)))


def evaluate(
    *,
    model: Annotated[
        str,
        typer.Option(
            metavar="DIR|NAME",
            help="Folder or file of a model, to be loaded here; or the name of a cluster's model.",
        ),
    ],
    images: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="A folder with one folder of images for each class; or the folder of the images "
            "of --annotations, --masks or --targets.",
        ),
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="For detectors: the boxes, as JSON in COCO's form."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="For segmenters: a mask for each image, as PNG of its name and size, whose values "
            "are class numbers; 255 does not count.",
        ),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For regression: the numbers of each image, as CSV (a.jpg,21.5) or JSON.",
        ),
    ] = None,
    upright: Annotated[
        bool,
        typer.Option(
            "--upright",
            help="The boxes are in pixels of the images as viewers show them, with their EXIF "
            "orientation.",
        ),
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Images in flight.")] = 8,
    min_score: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="For a detector that is loaded here: the least score of a box, instead of "
            "detection.min_score in its model.toml. mAP counts low scores too: 0.001 is usual.",
            show_default=False,
        ),
    ] = None,
    min_top1: Annotated[
        float | None, _limit("Least share of images whose best label is right.")
    ] = None,
    min_top5: Annotated[
        float | None, _limit("Least share of images whose label is among the best five.")
    ] = None,
    min_f1: Annotated[float | None, _limit("Least F1, the mean over the classes.")] = None,
    min_map: Annotated[float | None, _limit("Least mAP@[.5:.95] of a detector.")] = None,
    min_map50: Annotated[float | None, _limit("Least mAP50 of a detector.")] = None,
    min_iou: Annotated[float | None, _limit("Least mean IoU of a segmenter.")] = None,
    min_recall1: Annotated[
        float | None,
        _limit("Least share of an embedder's images whose nearest other one is of their class."),
    ] = None,
    min_recall5: Annotated[float | None, _limit("The same of one of the five nearest.")] = None,
    max_mae: Annotated[
        float | None,
        _limit("Most mean absolute error of a regression, in its unit.", "NUMBER"),
    ] = None,
    max_rmse: Annotated[
        float | None, _limit("Most root mean square error of a regression.", "NUMBER")
    ] = None,
    min_r2: Annotated[float | None, _limit("Least R2 of a regression.")] = None,
    max_failed: Annotated[
        int,
        typer.Option(
            metavar="N", min=0, help="Failed images for which the exit status is still 0."
        ),
    ] = 0,
    json: options.JsonReport = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw the confusion matrix, precision against recall, bars for each class, or "
            "values against targets, as .png or .svg.",
        ),
    ] = None,
    device: options.Device = "auto",
    relay: options.Relay = False,
    priority: options.Priority = None,
    deadline: options.Deadline = 30.0,
    wait_for_ready: options.WaitForReady = 5.0,
    model_options: ModelOptions,
    cluster: ClusterTarget,
) -> None:
    """Evaluate a model on labelled images: accuracy by class, mAP, errors, latency, images/s.

    fingerpost evaluate --model models/flowers --images flower_photos --plot confusion.png

    fingerpost evaluate --model faces --images photos --annotations boxes.json --min-map50 0.8

    Without --proxy, --registry or --consul, a model's folder or file is loaded in this process, and
    the name of a model is asked for at the proxy on this machine. The exit status is 1 if images
    failed, and 3 if a limit is not reached.
    """
    from fingerpost.deploy.evaluation.evaluation import EvaluationConfig
    from fingerpost.deploy.evaluation.show import show

    given = {
        "top1": min_top1,
        "top5": min_top5,
        "f1": min_f1,
        "map": min_map,
        "map50": min_map50,
        "iou": min_iou,
        "recall1": min_recall1,
        "recall5": min_recall5,
        "mae": max_mae,
        "rmse": max_rmse,
        "r2": min_r2,
    }
    limits = {figure: least for figure, least in given.items() if least is not None}
    config = EvaluationConfig(concurrency=concurrency, upright=upright, limits=limits)
    report_files = ReportFiles(json, plot)
    local = not cluster.named and is_path(model)
    if min_score is not None and not local:
        raise ConfigurationError(
            "--min-score is for a model that is loaded here: workers go by detection.min_score in "
            "model.toml"
        )
    truth = _truth(images, annotations, masks, targets, upright=upright)
    with err.status("asking for the first image") as status:

        def progress(done: int) -> None:
            status.update(f"{done:,} of {len(truth.images):,} images")

        if local:
            if relay or priority is not None:
                option = "--relay" if relay else "--class"
                raise ConfigurationError(f"{option} is for a cluster: name one, or leave it out")
            files = _files(model_options, Path(model), min_score)
            report = asyncio.run(_local(files, device, truth, config, progress))
        else:
            from fingerpost.client import ClientConfig

            name = service_of(Path(model)) if is_path(model) else model
            client_config = ClientConfig(timeout_s=deadline, wait_for_ready_s=wait_for_ready)
            client = cluster.client(client_config, relay=relay, priority=priority)
            labels = _labels(model_options.labels)
            try:
                report = asyncio.run(_cluster(client, name, labels, truth, config, progress))
            except RegistryUnreachable as error:
                if cluster.named:
                    raise
                raise ConfigurationError(
                    f"there is no file or folder {model!r} to load, and no cluster on this machine "
                    f"to ask for a model of that name: give --model DIR, or --proxy URL ({error})"
                ) from error
    report_files.write(report, draw=_draw, show=show)
    if not report.reached:
        raise typer.Exit(NOT_REACHED)
    if len(report.failed) > max_failed:
        raise typer.Exit(1)


def _draw(path: Path, report: Report) -> None:
    from fingerpost.deploy.evaluation.plot import draw

    draw(path, report)


def _truth(
    images: Path,
    annotations: Path | None,
    masks: Path | None,
    targets: Path | None,
    *,
    upright: bool,
) -> Truth:
    from fingerpost.deploy.evaluation.truth.class_folders import ClassFolders
    from fingerpost.deploy.evaluation.truth.coco import CocoFile
    from fingerpost.deploy.evaluation.truth.masks import MaskFolder
    from fingerpost.deploy.evaluation.truth.targets import TargetFile

    if sum(each is not None for each in (annotations, masks, targets)) > 1:
        raise typer.BadParameter("give one of --annotations, --masks and --targets")
    if upright and annotations is None:
        raise typer.BadParameter("--upright is for the boxes of --annotations FILE")
    if annotations is not None:
        import pycocotools  # noqa: F401 - whether it is there

        return CocoFile.read(annotations, images, upright=upright)
    if targets is not None:
        return TargetFile.read(targets, images)
    truth = MaskFolder.read(images, masks) if masks is not None else ClassFolders.read(images)
    if truth.skipped:
        err.print(f"not images, and left out: {truth.skipped}")
    return truth


def _files(model_options: ModelOptions, path: Path, min_score: float | None) -> ModelFiles:
    files = model_options.find(path)
    if min_score is None:
        return files
    detection = files.manifest.detection
    if detection is None:
        raise ConfigurationError(
            f"--min-score is for detectors: model {files.name} answers {files.manifest.task.value}"
        )
    if not 0 <= min_score <= 1:
        raise ConfigurationError(f"--min-score {min_score:g}: it must be 0 to 1")
    detection = msgspec.structs.replace(detection, min_score=min_score)
    return replace(files, manifest=msgspec.structs.replace(files.manifest, detection=detection))


def _labels(path: Path | None) -> tuple[str, ...] | None:
    from fingerpost.worker.models.labels import read_labels

    return None if path is None else read_labels(path)


async def _local(
    files: ModelFiles,
    device: str,
    truth: Truth,
    config: EvaluationConfig,
    progress: Callable[[int], None],
) -> Report:
    from fingerpost.deploy.evaluation.evaluation import evaluate as run
    from fingerpost.deploy.evaluation.judges import no_figures
    from fingerpost.deploy.evaluation.target import LocalModel
    from fingerpost.worker.backends.devices import find_gpus, place, visible_gpus
    from fingerpost.worker.models.tasks import Task
    from fingerpost.worker.tools.local_inference import LocalInference

    if files.manifest.task is Task.TENSORS:  # which may need more than an image to answer at all
        raise no_figures(files.name, files.manifest.task.value)
    placement = place(device, visible_gpus(find_gpus(), os.environ))
    os.environ.update(placement.environment())
    if files.manifest.detection is not None and files.manifest.detection.min_score > _LOW:
        note = (
            f"boxes under detection.min_score, {files.manifest.detection.min_score:g}, are left "
            "out, as when it is served; mAP with all boxes needs --min-score 0.001"
        )
        config = replace(config, notes=(*config.notes, note))
    async with LocalInference(files, placement.load_config()) as inference:
        return await run(
            LocalModel(inference),
            truth,
            config,
            model=files.name,
            labels=inference.labels or None,
            local=True,
            progress=progress,
        )


async def _cluster(
    client: Client,
    model: str,
    labels: tuple[str, ...] | None,
    truth: Truth,
    config: EvaluationConfig,
    progress: Callable[[int], None],
) -> Report:
    from fingerpost.deploy.evaluation.evaluation import evaluate as run
    from fingerpost.deploy.evaluation.target import ClusterModel
    from fingerpost.deploy.whole_run import check_model

    async with client:
        await check_model(client, model)
        return await run(
            ClusterModel(client, model), truth, config, model=model, labels=labels,
            progress=progress,
        )  # fmt: skip
