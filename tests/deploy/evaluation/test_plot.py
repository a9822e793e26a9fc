"""A plot of each task, with labels that matplotlib would read as something else."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.support.later import later

from fingerpost.client.wire import Prediction
from fingerpost.deploy.evaluation.figures.detection import DetectedBox, DetectionTally
from fingerpost.deploy.evaluation.figures.embedding import EmbeddingTally
from fingerpost.deploy.evaluation.figures.labels import ClassificationTally, MultilabelTally
from fingerpost.deploy.evaluation.figures.regression import RegressionTally
from fingerpost.deploy.evaluation.figures.segmentation import SegmentationTally
from fingerpost.deploy.evaluation.plot import draw
from fingerpost.deploy.evaluation.report import Report
from fingerpost.deploy.evaluation.truth.coco import DrawnBox
from fingerpost.deploy.load_test.measuring.histogram import Histogram
from fingerpost.deploy.load_test.measuring.report import Latency

if TYPE_CHECKING:
    import matplotlib as mpl
else:
    mpl = later("matplotlib")

LABELS = ("$x_1", "鳥", "a very long name of a class that nobody wants to read", "_hidden")


def classification() -> Any:
    tally = ClassificationTally()
    for label in LABELS:
        tally.add("1.png", label, [Prediction(LABELS[0], 0.9)])
    return tally.figures()


def multilabel() -> Any:
    tally = MultilabelTally()
    tally.add(LABELS, LABELS[1:])
    return tally.figures()


def detection(labels: tuple[str, ...] = LABELS) -> Any:
    tally = DetectionTally([*labels, "never"])
    for number, label in enumerate(labels, 1):
        box = DrawnBox(label=label, left=0, top=0, width=9, height=9, area=81, crowd=False)
        tally.add(number, [box, box], [DetectedBox(label, 0.9, 0, 0, 9, 9)])
    return tally.figures()


def segmentation() -> Any:
    tally = SegmentationTally(dict(enumerate(LABELS)))
    tally.add(np.array([[0, 1, 3]]), np.array([[0, 1, 1]]))
    return tally.figures()


def regression() -> Any:
    tally = RegressionTally(LABELS)
    for place in range(3):
        tally.add(place, "1.png", [float(place)] * 4, [place + 0.5] * 4)
    return tally.figures()


def embedding() -> Any:
    tally = EmbeddingTally()
    for place, label in enumerate((*LABELS, *LABELS[1:])):
        tally.add(place, "1.png", label, [1.0, float(place)])
    return tally.figures()


CASES: dict[str, tuple[Any, str]] = {
    "classification": (classification(), "png"),
    "multilabel": (multilabel(), "png"),
    "regression": (regression(), "png"),
    "embedding": (embedding(), "png"),
    "detection": (detection(), "svg"),
    "many": (detection(tuple(f"c{number}" for number in range(20))), "png"),
    "nothing": (detection(()), "png"),
    "segmentation": (segmentation(), "png"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_drawn(tmp_path: Path, case: str) -> None:
    figures, suffix = CASES[case]
    report = Report(
        model="$m",
        versions=dict(Counter({"1": 1})),
        task="task",
        local=True,
        images=1,
        answered=1,
        failed=[],
        seconds=1.0,
        images_per_s=1.0,
        concurrency=1,
        latency_ms=Latency.of(Histogram()),
        workers={},
        figures=figures,
        limits=[],
        notes=[],
    )
    path = tmp_path / f"plot.{suffix}"
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("error")
        draw(path, report)
    if suffix == "svg":
        text = path.read_text()
        assert "<!-- $x_1 50.5% -->" in text
        assert "<!--  _hidden 50.5% -->" in text
    else:
        with Image.open(path) as image:
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 3
