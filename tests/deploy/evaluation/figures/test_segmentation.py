"""Overlaps of areas, by hand and as scikit-learn's Jaccard score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fingerpost.deploy.evaluation.figures.segmentation import (
    IGNORED,
    AreaFigures,
    SegmentationTally,
)
from fingerpost.errors import InvalidRequest


def test_a_case_by_hand() -> None:
    tally = SegmentationTally({0: "ground", 3: "never"})
    true = np.array([[0, 0, 1, IGNORED]])
    tally.add(true, np.array([[0, 1, 1, 1]]), {1: "shape"})
    figures = tally.figures()
    assert figures.accuracy == 2 / 3
    assert figures.iou == 0.5
    assert figures.classes == [
        AreaFigures(label="ground", pixels=2, iou=0.5, precision=1.0, recall=0.5),
        AreaFigures(label="shape", pixels=1, iou=0.5, precision=0.5, recall=1.0),
    ]


@pytest.mark.frameworks
def test_several_images_with_more_and_more_classes_count_as_one() -> None:
    import sklearn.metrics

    rng = np.random.default_rng(1)
    tally = SegmentationTally()
    all_true, all_found = [], []
    for most in (2, 5, 3):
        true = rng.integers(0, most, (7, 9))
        found = np.where(rng.random((7, 9)) < 0.6, true, rng.integers(0, most, (7, 9)))
        tally.add(true, found.astype(np.uint8))
        all_true.append(true.ravel())
        all_found.append(found.ravel())
    true, found = np.concatenate(all_true), np.concatenate(all_found)
    figures = tally.figures()
    metrics: Any = sklearn.metrics
    expected = metrics.jaccard_score(true, found, average=None, labels=range(5))
    assert [each.iou for each in figures.classes] == pytest.approx(list(expected))
    assert figures.iou == pytest.approx(expected.mean())
    assert figures.accuracy == pytest.approx((true == found).mean())
    assert [each.label for each in figures.classes] == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("true", "message"),
    [
        (np.zeros((2, 3), int), "its mask is 3 x 2, but the image is 2 x 2 as it was sent"),
        (np.full((2, 2), 70_000), "values from 0 to 70000: masks hold class numbers, 0 to 4095"),
        (np.full((2, 2), -1), "values from -1 to 0"),
    ],
    ids=["size", "large", "negative"],
)
def test_a_mask_that_is_not_the_images(true: np.ndarray, message: str) -> None:
    tally = SegmentationTally()
    with pytest.raises(InvalidRequest, match=message):
        tally.add(true, np.zeros((2, 2), np.uint8))


def test_a_mask_of_which_nothing_counts_changes_nothing() -> None:
    tally = SegmentationTally()
    tally.add(np.full((2, 2), IGNORED), np.zeros((2, 2), np.uint8))
    assert (tally.figures().iou, tally.figures().classes) == (0.0, [])
