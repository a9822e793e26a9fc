"""Errors of numbers, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from fingerpost.deploy.evaluation.figures.regression import RegressionTally
from fingerpost.errors import BadAnswer


def test_figures_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(3)
    targets = rng.normal(20, 5, (50, 2))
    values = targets + rng.normal(1, 2, (50, 2))
    tally = RegressionTally(["age", "height"])
    for place in reversed(range(50)):  # answers come in any order
        tally.add(place, f"{place}.png", targets[place].tolist(), values[place].tolist())
    found = tally.figures()
    assert [each.image for each in found.images] == [f"{place}.png" for place in range(50)]
    assert found.mae == pytest.approx(metrics.mean_absolute_error(targets, values))
    assert found.rmse == pytest.approx(metrics.root_mean_squared_error(targets, values))
    assert found.r2 == pytest.approx(metrics.r2_score(targets, values))
    for number, each in enumerate(found.values):
        one = targets[:, number], values[:, number]
        assert each.label == ("age", "height")[number]
        assert each.mae == pytest.approx(metrics.mean_absolute_error(*one))
        assert each.r2 == pytest.approx(metrics.r2_score(*one))
        assert each.bias == pytest.approx(float(np.mean(one[1] - one[0])))


def test_equal_targets_have_no_r2() -> None:
    tally = RegressionTally(["0"])
    tally.add(0, "a.png", [3.0], [4.0])
    found = tally.figures()
    assert (found.mae, found.rmse, found.r2) == (1.0, 1.0, None)


def test_a_number_that_is_not_finite() -> None:
    with pytest.raises(BadAnswer, match="nan.* not finite"):
        RegressionTally(["0"]).add(0, "a.png", [3.0], [float("nan")])
