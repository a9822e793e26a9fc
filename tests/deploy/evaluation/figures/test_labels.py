"""The figures of classifiers, against scikit-learn's."""

from __future__ import annotations

import random

import pytest
from tests.support.later import later

from fingerpost.client.wire import Prediction
from fingerpost.deploy.evaluation.figures.labels import (
    ClassFigures,
    ClassificationTally,
    Mistake,
    MultilabelTally,
)

metrics = later("sklearn.metrics")

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")


def ranked(rng: random.Random) -> list[Prediction]:
    return [Prediction(name, 1 / place) for place, name in enumerate(rng.sample(NAMES, 7), 1)]


@pytest.mark.parametrize("seed", range(4))
def test_a_classifiers_figures_are_those_of_scikit_learn(seed: int) -> None:
    rng = random.Random(seed)
    true = [rng.choice(NAMES[:6]) for _ in range(60)]
    answers = [ranked(rng) for _ in true]
    tally = ClassificationTally()
    for number, (label, predictions) in enumerate(zip(true, answers, strict=True)):
        tally.add(f"{number:03}.png", label, predictions[:5])
    figures = tally.figures()
    best = [each[0].label for each in answers]
    assert figures.top1 == pytest.approx(metrics.accuracy_score(true, best))
    scores = [
        [next(p.score for p in each if p.label == name) for name in NAMES] for each in answers
    ]
    top5 = metrics.top_k_accuracy_score(true, scores, k=5, labels=list(NAMES))
    assert figures.top5 == pytest.approx(top5)
    names = [each.label for each in figures.classes]
    assert names == [*sorted(set(true)), *sorted(set(best) - set(true))]
    assert figures.confusion == metrics.confusion_matrix(true, best, labels=names).tolist()
    precision, recall, f1, images = metrics.precision_recall_fscore_support(
        true, best, labels=names, zero_division=0
    )
    assert [each.precision or 0 for each in figures.classes] == pytest.approx(list(precision))
    assert [each.recall or 0 for each in figures.classes] == pytest.approx(list(recall))
    assert [each.f1 for each in figures.classes] == pytest.approx(list(f1))
    assert [each.images for each in figures.classes] == list(images)
    mean = metrics.f1_score(true, best, labels=sorted(set(true)), average="macro", zero_division=0)
    assert figures.f1 == pytest.approx(mean)
    wrong = [f"{n:03}.png" for n, (a, b) in enumerate(zip(true, best, strict=True)) if a != b]
    assert [each.image for each in figures.mistakes] == wrong


def test_a_case_by_hand() -> None:
    tally = ClassificationTally()
    tally.add("1.png", "ant", [Prediction("ant", 0.9), Prediction("bee", 0.1)])
    tally.add("2.png", "ant", [Prediction("cat", 0.6), Prediction("ant", 0.4)])
    figures = tally.figures()
    assert (figures.top1, figures.top5) == (0.5, 1.0)
    assert figures.confusion == [[1, 1], [0, 0]]
    assert figures.classes == [
        ClassFigures(label="ant", images=2, precision=1.0, recall=0.5, f1=2 / 3),
        ClassFigures(label="cat", images=0, precision=0.0, recall=None, f1=0.0),
    ]
    assert figures.f1 == 2 / 3
    assert figures.mistakes == [Mistake(image="2.png", label="ant", predicted="cat", score=0.6)]


@pytest.mark.parametrize("seed", range(4))
def test_the_figures_of_several_labels_are_those_of_scikit_learn(seed: int) -> None:
    rng = random.Random(seed)
    true = [set(rng.sample(NAMES[:6], rng.randint(1, 3))) for _ in range(40)]
    given = [set(rng.sample(NAMES, rng.randint(0, 4))) for _ in true]
    tally = MultilabelTally()
    for pair in zip(true, given, strict=True):
        tally.add(*pair)
    figures = tally.figures()
    names = [each.label for each in figures.classes]
    wanted, got = ([[int(name in each) for name in names] for each in of] for of in (true, given))
    assert figures.exact == pytest.approx(metrics.accuracy_score(wanted, got))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        wanted, got, average="micro", zero_division=0
    )
    assert [figures.precision, figures.recall, figures.f1_micro] == pytest.approx(
        [precision, recall, f1]
    )
    each = metrics.precision_recall_fscore_support(wanted, got, zero_division=0)
    assert [e.precision or 0 for e in figures.classes] == pytest.approx(list(each[0]))
    assert [e.recall or 0 for e in figures.classes] == pytest.approx(list(each[1]))
    assert [e.f1 for e in figures.classes] == pytest.approx(list(each[2]))
    known = [f for f, count in zip(each[2], each[3], strict=True) if count]
    assert figures.f1 == pytest.approx(sum(known) / len(known))
    assert [e.images for e in figures.classes] == list(each[3])


def test_a_model_that_gives_no_label_has_no_precision() -> None:
    tally = MultilabelTally()
    tally.add({"ant"}, [])
    figures = tally.figures()
    assert (figures.precision, figures.recall, figures.exact) == (None, 0.0, 0.0)
