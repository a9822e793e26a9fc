"""The steps of the demo of detection: train, serve, find, judge, and draw what was found."""

from __future__ import annotations

import asyncio
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fingerpost.client import Client, Detection
from fingerpost.deploy.boxes import draw_boxes
from fingerpost.deploy.console import err, out, print_json
from fingerpost.deploy.demo.demo import cluster_config
from fingerpost.deploy.demo.shapes.detector import train_detector
from fingerpost.deploy.demo.shapes.drawings import write_drawings
from fingerpost.deploy.evaluation.evaluation import EvaluationConfig, evaluate
from fingerpost.deploy.evaluation.show import show
from fingerpost.deploy.evaluation.target import ClusterModel
from fingerpost.deploy.evaluation.truth.coco import CocoFile
from fingerpost.deploy.local.cluster import LocalCluster
from fingerpost.errors import WrongTask
from fingerpost.worker.models.files import find_versions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fingerpost.deploy.evaluation.report import Report

__all__ = ["run_detection_demo"]

_IMAGES: Final = 60
_SEED: Final = 12
# Boxes of a score that people would take for found; mAP counts those of lower scores too.
_SURE: Final = 0.5


def run_detection_demo(
    data: Path,
    model: Path,
    *,
    trained: bool,
    json: bool,
    keep: Callable[[LocalCluster], Awaitable[None]] | None = None,
) -> Report:
    """Train the detector, serve it from three workers, judge it, and draw its boxes.

    Args:
        data: where the drawings go, and the image with its boxes.
        model: where the model goes.
        trained: use the model that is there, if there is one.
        json: print the figures as JSON.
        keep: waits before the cluster is stopped.
    """
    import pycocotools  # noqa: F401 - whether it is there, before anything is trained

    if trained and find_versions(model):
        err.rule("1  The detector is trained already", align="left")
        err.print(f"{model}")
    else:
        err.rule("1  Train a tiny detector on drawn shapes", align="left")
        with err.status("drawing circles, squares and triangles, and training on them..."):
            folder = train_detector(model)
        err.print(f"{folder}")
    truth = CocoFile.read(write_drawings(data, _IMAGES, _SEED), data / "images")
    log: deque[str] = deque(maxlen=100)

    async def run() -> Report:
        err.rule("2  Start registry, proxy and 3 workers", align="left")
        config = cluster_config(model)
        async with LocalCluster(
            config, lambda name, line: log.append(f"{name} | {line}")
        ) as cluster:
            with err.status("loading and warming up the model in every worker..."):
                await cluster.wait_ready(timeout_s=120.0)
            report = await _judge(cluster, model.name, truth, data / "boxes.png", json=json)
            if keep is not None:
                await keep(cluster)
        return report

    try:
        return asyncio.run(run())
    except BaseException:
        for line in log:
            err.print(line)
        raise


async def _judge(
    cluster: LocalCluster, model: str, truth: CocoFile, picture: Path, *, json: bool
) -> Report:
    err.print(
        f"registry {cluster.registry_url}, proxy {cluster.proxy_url}, "
        f"{len(cluster.workers)} workers ready",
    )
    err.rule("3  Find the shapes in drawings that it was not trained on", align="left")
    async with Client(cluster.proxy_url) as client:
        report = await evaluate(ClusterModel(client, model), truth, EvaluationConfig(), model=model)
        chosen = max(truth.images, key=lambda each: len(each.boxes))
        answer = await client.infer(chosen.path, model)
    if not isinstance(answer, Detection):
        raise WrongTask(f"model {model} does not answer boxes: leave --trained out")
    sure = _sure(answer)
    draw_boxes(Path(chosen.path), sure, picture)
    if json:
        print_json({"report": report, "image": chosen.path, "picture": str(picture)})
    else:
        show(report)
    err.rule("4  The boxes on an image", align="left")
    for label, score, *edges in sure:
        left, top, right, bottom = (f"{each:.0f}" for each in edges)
        err.print(f"{label} {score:.1%} at ({left}, {top}) to ({right}, {bottom})")
    (err if json else out).print(f"{picture} shows them on {chosen.path}")
    return report


def _sure(answer: Detection) -> Detection:
    """The answer without boxes of low scores; boxes are best first."""
    count = int((answer.scores >= _SURE).sum())
    return msgspec.structs.replace(
        answer,
        boxes=answer.boxes[:count],
        scores=answer.scores[:count],
        classes=answer.classes[:count],
        labels=answer.labels[:count],
    )
