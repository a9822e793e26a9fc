"""Evaluations of regression and of embeddings, around answers that are known."""

from __future__ import annotations

import re

import msgspec
import pytest
from tests.support.evaluations import folders, report_of, targets

from fingerpost.client.tasks.results import Embedding, Regression, TaskResult
from fingerpost.deploy.console import out
from fingerpost.deploy.evaluation.show import show
from fingerpost.errors import ConfigurationError


async def test_regression() -> None:
    def answer(path: str) -> TaskResult:
        values = [0.0, float(path[0]) + 0.5 if path != "3.png" else float("nan")]
        return Regression(
            model="m",
            version="1",
            values=values[: 1 if path == "4.png" else 2],
            labels=("x", "age"),
        )

    truth = targets(*((f"{n}.png", (float(n),)) for n in range(5)), labels=("age",))
    limits = {"mae": 0.5, "rmse": 0.4, "r2": -1.0}
    report = await report_of(truth, answer, limits=limits)
    assert (report.task, report.answered) == ("regression", 3)
    assert [(each.image, each.code) for each in report.failed] == [
        ("3.png", "bad_answer"),
        ("4.png", "bad_answer"),
    ]
    assert "gave 1 numbers, and 2 for the first image" in report.failed[1].message
    assert report.figures.values[0].label == "age"  # type: ignore[union-attr]
    assert [(each.figure, each.reached) for each in report.limits] == [
        ("mae", True),
        ("rmse", False),
        ("r2", True),
    ]
    assert msgspec.json.decode(msgspec.json.encode(report))["limits"][0] == {
        "figure": "mae", "most": 0.5, "value": 0.5, "reached": True,
    }  # fmt: skip
    with out.capture() as shown:
        show(report)
    text = shown.get()
    assert re.search("^MAE +0.5$", text, re.MULTILINE)
    assert "Largest errors:\n    0.png: 0.5 for 0\n" in text
    assert "NOT REACHED: rmse is 0.5000, --max-rmse 0.4" in text


async def test_equal_targets_reach_no_r2() -> None:
    one = Regression(model="m", version="1", values=[2.0])
    report = await report_of(targets(("1.png", (1.0,))), lambda _: one, limits={"r2": 0.1})
    assert not report.reached
    with out.capture() as shown:
        show(report)
    assert "NOT REACHED: r2 is not known, --min-r2 0.1" in shown.get()


async def test_embeddings() -> None:
    rows = {"ant/0.png": [1.0, 0.0], "ant/1.png": [5.0, 0.25], "bee/2.png": [0.0, 1.0]}
    rows |= {"bee/3.png": [1.0, 0.15], "cat/4.png": [-1.0, 0.0], "dog/5.png": [0.0, 0.0]}

    def answer(path: str) -> TaskResult:
        return Embedding(model="m", version="1", vector=rows[path])

    truth = folders("ant", "ant", "bee", "bee", "cat", "dog")
    report = await report_of(truth, answer, limits={"recall1": 0.75})
    # One of the bees is nearest to an ant.
    assert report.figures.recall1 == 0.75  # type: ignore[union-attr]
    assert report.reached
    assert [(each.image, each.message) for each in report.failed] == [
        ("dog/5.png", "the model gave a vector of length 0, which has no angle")
    ]
    assert "1 images are the only answered ones of their class" in report.notes[0]
    with out.capture() as shown:
        show(report)
    assert re.search("^recall@1 +75.0%$", shown.get(), re.MULTILINE)
    assert "Most frequent mistakes: bee nearest to ant (1)" in shown.get()
    with pytest.raises(ConfigurationError, match="no class folder in 'photos' has two images"):
        await report_of(folders("ant", "bee"), answer)
