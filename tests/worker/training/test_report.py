"""The figures and the picture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from fingerpost.worker.training.report import Evaluation, draw_confusion, write_report

if TYPE_CHECKING:
    from pathlib import Path


def test_precision_and_recall_by_hand(tmp_path: Path) -> None:
    made = Evaluation.of(("a", "b", "c"), truth=[0, 0, 0, 1, 1, 2], predicted=[0, 0, 1, 1, 0, 1])
    assert made.confusion.tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 0]]
    assert made.accuracy == 0.5
    figures = [(c["precision"], c["recall"]) for c in made.classes()]
    assert figures == [(2 / 3, 2 / 3), (1 / 3, 1 / 2), (None, 0)]
    write_report(tmp_path / "report.json", made, {"skipped": ["not-utf-8-\udce9"]})
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    assert report["accuracy"] == 0.5
    assert report["confusion"] == made.confusion.tolist()


@pytest.mark.frameworks
@pytest.mark.parametrize(("classes", "pixels"), [(2, 300), (120, 3900), (400, 3900)])
def test_the_picture_grows_with_the_classes(tmp_path: Path, classes: int, pixels: int) -> None:
    awkward = ["$x^$", "向日葵", "a name so long that it would leave no room for the matrix"]
    labels = (awkward + [f"class {i}" for i in range(classes)])[:classes]
    truth = list(range(classes))
    draw_confusion(tmp_path / "c.png", Evaluation.of(tuple(labels), truth, truth[::-1]))
    with Image.open(tmp_path / "c.png") as image:
        assert image.height >= pixels
