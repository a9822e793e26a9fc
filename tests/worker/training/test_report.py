"""The figures and the picture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from fingerpost.worker.training.report import (
    Evaluation,
    described_accuracy,
    draw_confusion,
    write_report,
)

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


@pytest.mark.parametrize(
    ("images", "right", "learned"),
    [
        # Binomial(9, 1/3): 6 or more right by chance in 4.2 % of all cases, 5 or more in 14.5 %.
        ([3, 3, 3], 6, True),
        ([3, 3, 3], 5, False),
        ([3, 3, 3], 0, False),
        # All right is learned, although guesses are so too in 6.3 % of all cases.
        ([2, 2], 4, True),
        ([2, 2], 3, False),
        # Nine of ten images in one class: to answer it always is no skill.
        ([90, 10], 90, False),
        ([90, 10], 96, True),
        ([100, 100], 113, True),
        ([100, 100], 112, False),
    ],
)
def test_whether_more_was_learned_than_to_guess(
    images: list[int], right: int, learned: bool
) -> None:
    truth = [label for label, count in enumerate(images) for _ in range(count)]
    predicted = [label if i < right else (label + 1) % len(images) for i, label in enumerate(truth)]
    made = Evaluation.of(("a", "b", "c")[: len(images)], truth, predicted)
    assert made.guessing == max(images) / sum(images)
    assert made.learned is learned


@pytest.mark.frameworks
@pytest.mark.parametrize(("classes", "pixels"), [(2, 300), (120, 3900), (400, 3900)])
def test_the_picture_grows_with_the_classes(tmp_path: Path, classes: int, pixels: int) -> None:
    awkward = ["$x^$", "向日葵", "a name so long that it would leave no room for the matrix"]
    labels = (awkward + [f"class {i}" for i in range(classes)])[:classes]
    truth = list(range(classes))
    draw_confusion(tmp_path / "c.png", Evaluation.of(tuple(labels), truth, truth[::-1]))
    with Image.open(tmp_path / "c.png") as image:
        assert image.height >= pixels


def test_an_accuracy_in_words(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert described_accuracy(report) is None
    report.write_text("{")
    assert described_accuracy(report) is None
    write_report(report, None, {"accuracy": None})
    assert described_accuracy(report) is None
    trained = Evaluation.of(("a", "b"), truth=[0, 0, 1], predicted=[0, 1, 1])
    write_report(report, trained, {"accuracy_of": "some images"})
    assert described_accuracy(report) == "accuracy 66.67% on some images"
    facts = {"accuracy": 0.5, "accuracy_of_original": 0.75, "accuracy_of": "the images of photos"}
    write_report(report, None, facts)
    said = "accuracy 50.00% (75.00% before it was quantized) on the images of photos"
    assert described_accuracy(report) == said
