"""Recall of neighbours, against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from fingerpost.deploy.evaluation.figures import embedding
from fingerpost.deploy.evaluation.figures.embedding import EmbeddingTally
from fingerpost.errors import BadAnswer


def plain(vectors: np.ndarray, labels: list[str], k: int) -> float:
    """Recall@k by its definition."""
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = right = 0
    for row, label in enumerate(labels):
        if labels.count(label) < 2:
            continue
        asked += 1
        order = sorted(
            (each for each in range(len(labels)) if each != row),
            key=lambda each: -float(units[row] @ units[each]),
        )
        right += any(labels[each] == label for each in order[:k])
    return right / asked


@pytest.mark.parametrize("rows", [7, 1000])
def test_recall_is_what_its_definition_says(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "_ROWS", rows)  # blocks of the matrix change nothing
    rng = np.random.default_rng(5)
    labels: list[str] = [*("abcd"[each] for each in rng.integers(0, 4, 60)), "alone"]
    names: list[str] = [*"abcd", "alone"]
    centres = dict(zip(names, rng.normal(0, 1, (5, 8)), strict=True))
    vectors = np.stack([centres[each] * 0.7 for each in labels]) + rng.normal(0, 1, (61, 8))
    tally = EmbeddingTally()
    for place in rng.permutation(61).tolist():
        tally.add(place, f"{place}.png", labels[place], vectors[place].astype(np.float32))
    found = tally.figures()
    assert found.recall1 == pytest.approx(plain(vectors, labels, 1))
    assert found.recall5 == pytest.approx(plain(vectors, labels, 5))
    assert 0 < found.recall1 < found.recall5 < 1
    assert (found.alone, found.dimensions) == (1, 8)
    assert [each.label for each in found.classes] == ["a", "alone", "b", "c", "d"]
    assert (found.classes[1].images, found.classes[1].recall1) == (1, None)
    assert len(found.mistakes) == round((1 - found.recall1) * 60)
    assert all(each.label != each.nearest_label for each in found.mistakes)


def test_two_images() -> None:
    tally = EmbeddingTally()
    for place in range(2):
        tally.add(place, f"{place}.png", "a", [1.0, place])
    assert (tally.figures().recall1, tally.figures().recall5) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("vector", "message"),
    [([0.0, 0.0], "length 0"), ([1.0, float("inf")], "length inf"), ([1.0], r"shape \[1\]"),
     ([[1.0, 2.0]], r"shape \[1, 2\]")],
)  # fmt: skip
def test_a_vector_without_an_angle(vector: object, message: str) -> None:
    tally = EmbeddingTally()
    tally.add(0, "a.png", "a", [1.0, 2.0])
    with pytest.raises(BadAnswer, match=message):
        tally.add(1, "b.png", "a", vector)
