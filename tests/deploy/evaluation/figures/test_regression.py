"""Errors of numbers, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from fingerpost.deploy.evaluation.figures.regression import RegressionTally
from fingerpost.errors import BadAnswer


def test_figures_are_what_their_definitions_say() -> None:
    rng = np.random.default_rng(3)
    targets = rng.normal(20, 5, (50, 2))
    values = targets + rng.normal(1, 2, (50, 2))
    tally = RegressionTally(["age", "height"])
    for place in reversed(range(50)):  # answers come in any order
        tally.add(place, f"{place}.png", targets[place].tolist(), values[place].tolist())
    found = tally.figures()
    assert [each.image for each in found.images] == [f"{place}.png" for place in range(50)]
    errors = values - targets
    mae, rmse = np.abs(errors).mean(axis=0), np.sqrt((errors**2).mean(axis=0))
    r2 = 1 - (errors**2).mean(axis=0) / targets.var(axis=0)
    for number, each in enumerate(found.values):
        assert each.label == ("age", "height")[number]
        assert (each.mae, each.rmse) == (pytest.approx(mae[number]), pytest.approx(rmse[number]))
        assert each.r2 == pytest.approx(r2[number])
        assert each.bias == pytest.approx(errors[:, number].mean())
    assert found.mae == pytest.approx(mae.mean())
    assert found.rmse == pytest.approx(rmse.mean())
    assert found.r2 == pytest.approx(r2.mean())


def test_equal_targets_have_no_r2() -> None:
    tally = RegressionTally(["0"])
    tally.add(0, "a.png", [3.0], [4.0])
    found = tally.figures()
    assert (found.mae, found.rmse, found.r2) == (1.0, 1.0, None)


def test_a_number_that_is_not_finite() -> None:
    with pytest.raises(BadAnswer, match="nan.* not finite"):
        RegressionTally(["0"]).add(0, "a.png", [3.0], [float("nan")])
