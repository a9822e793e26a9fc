"""One contract for every kind of model: the right answer, whatever the batch, and clear errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fingerpost.registry import ConfigurationError
from fingerpost.worker.backends.base import Backend
from fingerpost.worker.backends.tensorflow import TensorFlowOptions, load_tensorflow
from fingerpost.worker.engine import warm_up
from fingerpost.worker.images import ImageLimits, prepare
from fingerpost.worker.local import LocalModel
from fingerpost.worker.modelfiles import find_model
from fingerpost.worker.worker import check_labels
from tests.worker.colours import LABELS, Models, encoded

KINDS = ("saved_model", "keras", "frozen_pixels", "frozen_jpeg")


@pytest.fixture(scope="module", params=KINDS)
def backend(request: pytest.FixtureRequest, models: Models) -> Backend:
    return load_tensorflow(find_model(getattr(models, request.param)), TensorFlowOptions())


def test_every_colour_is_told_in_every_batch_size(backend: Backend) -> None:
    colours = ["red", "blue", "green", "green", "blue"]
    for count in (1, 2, 5):
        images = [prepare(encoded(each), backend.input, ImageLimits()) for each in colours[:count]]
        scores = backend.predict(images)
        assert scores.shape == (count, 3)
        assert scores.dtype == np.float32
        assert [LABELS[i] for i in scores.argmax(axis=1)] == colours[:count]
        assert scores.sum(axis=1) == pytest.approx(np.ones(count), abs=1e-5)


def test_a_batch_answers_as_its_parts_do(backend: Backend) -> None:
    images = [
        prepare(encoded(each, size), backend.input, ImageLimits())
        for each, size in (("red", (40, 30)), ("green", (16, 16)), ("blue", (200, 100)))
    ]
    together = backend.predict(images)
    alone = np.concatenate([backend.predict([image]) for image in images])
    assert together == pytest.approx(alone, abs=1e-5)


def test_warm_up_counts_the_classes(backend: Backend) -> None:
    assert warm_up(backend, 4) == 3
    assert backend.framework.startswith("tensorflow 2.")
    assert backend.device


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_tutorials_graph_takes_every_format(models: Models, form: str) -> None:
    files = find_model(models.frozen_jpeg)
    local = LocalModel(files, load_tensorflow(files, TensorFlowOptions()))
    ((label, score),) = local.classify(encoded("green", (64, 64), form), top=1)
    assert label == "green"
    assert score > 0.99


def test_explicit_layers_mean_and_std(models: Models) -> None:
    files = find_model(models.frozen_pixels)
    options = TensorFlowOptions(input_layer="input:0", output_layer="final_result", input_std=1.0)
    scores = load_tensorflow(files, options).predict(
        [np.full((16, 16, 3), 0, np.uint8), np.asarray(Image.new("RGB", (16, 16), (2, 1, 0)))]
    )
    assert scores[0] == pytest.approx([1 / 3] * 3)
    # Not divided by 255: already two gray levels are certainty.
    assert scores[1][0] > 0.99


def test_clear_errors(models: Models, tmp_path: Path) -> None:
    def load(path: Path, **options: object) -> None:
        load_tensorflow(find_model(path), TensorFlowOptions(**options))

    with pytest.raises(ConfigurationError, match=r"no tensor 'final_rezult:0'.*final_result"):
        load(models.frozen_jpeg, output_layer="final_rezult")
    with pytest.raises(ConfigurationError, match=r"--input-layer"):
        load(models.frozen_pixels, input_layer="nonsense:0")
    broken = tmp_path / "broken.pb"
    broken.write_bytes(b"this is no graph")
    with pytest.raises(ConfigurationError, match=r"broken.pb is no frozen graph"):
        load(broken)
    copy = tmp_path / "cut"
    shutil.copytree(models.saved_model, copy)
    (copy / "7" / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(ConfigurationError, match=r"SavedModel .* cannot be loaded"):
        load(copy)
    keras = tmp_path / "cut.keras"
    keras.write_bytes(models.keras.read_bytes()[:100])
    with pytest.raises(ConfigurationError, match=r"cut.keras cannot be loaded"):
        load(keras)
    with pytest.raises(ConfigurationError, match=r"--input-std 0"):
        load(models.frozen_pixels, input_std=0.0)
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\n")
    with pytest.raises(ConfigurationError, match=r"gives 3 scores, but its labels file has 2"):
        check_labels(find_model(models.saved_model, labels=labels), 3)


def test_a_model_that_fails_or_gives_nonsense_does_not_pass_the_warm_up(models: Models) -> None:
    class Nonsense:
        framework = device = "test"
        input = load_tensorflow(find_model(models.saved_model), TensorFlowOptions()).input
        answer: object = np.full((1, 3), np.nan, np.float32)

        def predict(self, images: object) -> object:
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

    bad = Nonsense()
    with pytest.raises(ConfigurationError, match="expected finite scores"):
        warm_up(bad, 1)  # type: ignore[arg-type]
    bad.answer = RuntimeError("out of memory")
    with pytest.raises(ConfigurationError, match=r"fails on a gray image .*out of memory"):
        warm_up(bad, 1)  # type: ignore[arg-type]
