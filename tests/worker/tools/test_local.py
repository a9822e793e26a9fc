"""One-shot classification, and the warm-up that every model must pass first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ImageInput, LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.models.files import find_model
from fingerpost.worker.tools.local import LocalModel
from tests.support.colours import Models, encoded


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_tutorials_graph_takes_every_format(models: Models, form: str) -> None:
    files = find_model(models.frozen_jpeg)
    local = LocalModel(files, load_backend(files, LoadConfig()))
    ((label, score),) = local.classify(encoded("green", (64, 64), form), top=1)
    assert label == "green"
    assert score > 0.99


def test_labels_that_do_not_fit(models: Models, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\n")
    files = find_model(models.saved_model, labels=labels)
    with pytest.raises(
        ConfigurationError, match=r"gives 3 scores for an image, but has 2 labels.*'background'"
    ):
        LocalModel(files, load_backend(files, LoadConfig()))


def test_a_model_that_fails_or_gives_nonsense_does_not_pass_the_warm_up() -> None:
    class Nonsense:
        framework = platform = device = "test"
        input = ImageInput(height=4, width=4)
        answer: Any = np.full((1, 3), np.nan, np.float32)

        def predict(self, images: object) -> Any:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        def close(self) -> None:
            """Nothing."""

    bad = Nonsense()
    with pytest.raises(ConfigurationError, match="expected finite scores"):
        warm_up(bad, 1)
    bad.answer = RuntimeError("out of memory")
    with pytest.raises(ConfigurationError, match=r"fails on a gray image .*out of memory"):
        warm_up(bad, 1)
