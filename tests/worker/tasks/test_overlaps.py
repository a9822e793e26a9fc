"""Non-maximum suppression against the definition, box by box."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fingerpost.worker.tasks.overlaps import without_overlaps
from tests.support.examples import examples


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, across) * max(0.0, down)
    areas = [(each[2] - each[0]) * (each[3] - each[1]) for each in (one, other)]
    union = sum(areas) - shared
    return shared / union if union else 0.0


def by_definition(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, max_overlap: float, most: int
) -> list[int]:
    kept: list[int] = []
    for place in sorted(range(len(boxes)), key=lambda place: -scores[place]):
        rivals = [each for each in kept if classes[each] == classes[place]]
        if all(overlap(boxes[each], boxes[place]) <= max_overlap for each in rivals):
            kept.append(place)
    return kept[:most]


@given(
    corners=st.lists(st.tuples(*[st.integers(0, 20)] * 4), max_size=25),
    max_overlap=st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]),
    most=st.integers(1, 30),
    seed=st.integers(0, 1000),
)
@settings(max_examples=examples(150), deadline=None)
def test_it_keeps_what_the_definition_keeps(
    corners: list[tuple[int, int, int, int]], max_overlap: float, most: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in corners], np.float64).reshape(-1, 4)
    scores = rng.integers(0, 5, len(boxes)) / 4  # many are equal
    classes = rng.integers(0, 3, len(boxes))
    found = without_overlaps(boxes, scores, classes, max_overlap=max_overlap, most=most)
    assert found.tolist() == by_definition(boxes, scores, classes, max_overlap, most)


def test_boxes_of_other_classes_stay() -> None:
    boxes = np.array([[-5.0, 0, 10, 10], [-5, 0, 10, 10], [-5, 0, 10, 9.9]])
    found = without_overlaps(
        boxes, np.array([0.5, 0.9, 0.4]), np.array([0, 1, 0]), max_overlap=0.5, most=9
    )
    assert found.tolist() == [1, 0]


def test_no_box() -> None:
    none = np.zeros((0, 4))
    found = without_overlaps(none, none[:, 0], np.zeros(0, np.int64), max_overlap=0.5, most=9)
    assert found.tolist() == pytest.approx([])
