"""Measuring models: real processes, in turn; and which of the results to recommend."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.files import ModelFiles, find_model
from fingerpost.worker.tools.bench import (
    BenchConfig,
    Candidate,
    Measurement,
    accurate,
    best_latency,
    best_throughput,
    measure,
    threads_worth_trying,
)
from tests.support.builders.onnx import channels_first
from tests.support.builders.python import write_class
from tests.support.colours import LABELS, encoded


def result(name: str, batch: int, images_s: float, p50_ms: float) -> Measurement:
    candidate = Candidate(model=name, framework="x 1", device="cpu", threads=1, load_s=0.1)
    return Measurement(
        candidate=candidate, batch=batch, images_s=images_s, p50_ms=p50_ms, p99_ms=p50_ms
    )


def test_what_is_recommended() -> None:
    found = [
        result("slow", 1, 50, 20.0),
        result("slow", 8, 98, 81.0),
        result("slow", 16, 100, 160.0),
        result("quick", 1, 90, 11.0),
        result("quick", 8, 91, 88.0),
    ]
    assert best_throughput(found) == found[1]  # within 3 % of the most, and half the batch
    assert best_latency(found) == found[3]
    assert best_throughput(found[3:]) == found[3]


@pytest.mark.parametrize(
    ("cores", "threads"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (4, (1, 2, 4)), (16, (1, 8, 16))]
)
def test_threads(cores: int, threads: tuple[int, ...]) -> None:
    assert threads_worth_trying(cores) == threads


def test_settings() -> None:
    mistakes: tuple[dict[str, Any], ...] = (
        {"batch_sizes": ()},
        {"batch_sizes": (0,)},
        {"seconds": 0.0},
    )
    for wrong in mistakes:
        with pytest.raises(ConfigurationError):
            BenchConfig(**wrong)


_PICKY = """\
import os
import numpy as np

class Colours:
    height = width = 8

    def __init__(self, folder):
        if (folder / "die").exists():
            os._exit(3)

    def predict(self, batch):
        if len(batch) > 2:
            raise ValueError("two at most")
        return batch.mean(axis=(1, 2)) * [1, 0, 0]  # it sees only red
"""


def model(folder: Path, build: Callable[[Path], None]) -> ModelFiles:
    folder.mkdir()
    build(folder)
    return find_model(folder)


def test_models_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    models = [
        model(tmp_path / "onnx", channels_first),
        model(tmp_path / "picky", lambda folder: write_class(folder, _PICKY)),
    ]
    told: list[str] = []
    images = (*map(encoded, LABELS), b"no image")
    config = BenchConfig(batch_sizes=(1, 4), threads=(1,), seconds=0.4, device="cpu", images=images)
    found = measure(models, config, progress=told.append)
    runtimes = [each.candidate.framework.partition(" ")[0] for each in found]
    rows = [(each.candidate.model, each.batch, each.candidate.agreement) for each in found]
    assert list(zip(runtimes[:4], rows[:4], strict=True)) == [
        ("onnxruntime", ("onnx@1", 1, 1.0)),
        ("onnxruntime", ("onnx@1", 4, 1.0)),
        ("openvino", ("onnx@1", 1, 1.0)),  # which reads the same file
        ("openvino", ("onnx@1", 4, 1.0)),
    ]
    assert rows[4:] == [("picky@1", 1, 0.5)]  # right on red, and on the broken image as all are
    assert [each.candidate.setting for each in found] == [
        "", "", 'framework = "openvino"', 'framework = "openvino"', "",
    ]  # fmt: skip
    assert accurate(found, 0.99) == found[:4]
    for each in found:
        assert each.images_s > 0
        assert 0 < each.p50_ms <= each.p99_ms
        assert each.cpu_ms > 0
    assert any("batch of 4: model picky cannot run it: two at most" in line for line in told)
    assert multiprocessing.active_children() == []


def test_models_that_cannot_be_measured(tmp_path: Path) -> None:
    config = BenchConfig(batch_sizes=(4,), threads=(1,), seconds=0.1, device="cpu")
    picky = model(tmp_path / "picky", lambda folder: write_class(folder, _PICKY))
    with pytest.raises(ConfigurationError, match="no model could run any"):
        measure([picky], config)
    (picky.folder / "die").touch()
    with pytest.raises(ConfigurationError, match="the process that ran model picky died"):
        measure([picky], config)
    (picky.folder / "colours.py").write_text("nonsense")
    with pytest.raises(ConfigurationError, match=r"colours:Colours"):
        measure([picky], config)
    assert multiprocessing.active_children() == []
