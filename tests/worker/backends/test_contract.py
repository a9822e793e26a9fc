"""One contract for every backend, on real models: the right answer whatever the batch."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from fingerpost.errors import ConfigurationError, InvalidRequest
from fingerpost.worker.backends.base import Backend, LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.backends.pixels import stack
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.models.files import ModelFiles, find_model
from fingerpost.worker.models.manifest import Framework
from tests.support.builders.all import BUILDERS
from tests.support.colours import LABELS, SIDE, encoded

CPU = LoadConfig(device="cpu")
# Triton's words, by what the model's file is called; a SavedModel is a folder.
PLATFORMS = {
    "": "tensorflow_savedmodel",
    ".keras": "tensorflow_keras",
    ".pb": "tensorflow_graphdef",
    ".onnx": "onnxruntime_onnx",
    ".xml": "openvino_ir",
    ".tflite": "litert_tflite",
    ".pt": "pytorch_libtorch",
    ".pt2": "pytorch_libtorch",
    ".prototxt": "opencv_caffe",
}


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    folder = tmp_path_factory.mktemp("models") / request.param
    folder.mkdir()
    BUILDERS[request.param](folder)
    return find_model(folder)


@pytest.fixture(scope="module")
def backend(files: ModelFiles) -> Iterator[Backend]:
    backend = load_backend(files, CPU)
    yield backend
    backend.close()


def item(
    backend: Backend, colour: str, size: tuple[int, int] = (40, 30)
) -> NDArray[np.uint8] | bytes:
    return prepare(encoded(colour, size), backend.input, ImageConfig())


def test_every_colour_is_told_in_every_batch_size(files: ModelFiles, backend: Backend) -> None:
    colours = ["red", "blue", "green", "green", "blue"]
    for count in (1, 2, 4, 5):
        scores = backend.predict([item(backend, each) for each in colours[:count]])
        assert scores.shape == (count, 3)
        assert scores.dtype == np.float32
        assert [files.labels[i] for i in scores.argmax(axis=1)] == colours[:count]
        step = 1 / 128 if "int8" in files.name else 1e-5  # a quantized score has 256 values
        assert scores.sum(axis=1) == pytest.approx(np.ones(count), abs=step)
        assert scores.max(axis=1).min() > 0.99
    assert files.labels == LABELS


def test_a_batch_answers_as_its_parts_do(backend: Backend) -> None:
    images = [
        item(backend, colour, size)
        for colour, size in (("red", (40, 30)), ("green", (16, 16)), ("blue", (200, 100)))
    ]
    before = [image.copy() if isinstance(image, np.ndarray) else image for image in images]
    together = backend.predict(images)
    alone = np.concatenate([backend.predict([image]) for image in images])
    assert together == pytest.approx(alone, abs=1e-5)
    assert all(np.array_equal(*pair) for pair in zip(images, before, strict=True))


def test_tensors_go_in_as_they_are(backend: Backend) -> None:
    if backend.input.encoded:
        with pytest.raises(InvalidRequest, match="decodes images itself"):
            backend.predict([np.zeros((SIDE, SIDE, 3), np.float32)])
        return
    pixels = [item(backend, "red"), item(backend, "black"), item(backend, "green")]
    tensors = list(stack(pixels, backend.input).astype(np.float32))
    assert tensors[0].shape == backend.input.tensor_shape
    expected = backend.predict(pixels)
    assert backend.predict(tensors) == pytest.approx(expected, abs=1e-5)
    assert backend.predict([pixels[0], *tensors[1:]]) == pytest.approx(expected, abs=1e-5)


def test_an_item_that_does_not_fit_is_refused(backend: Backend) -> None:
    if backend.input.encoded:
        with pytest.raises(InvalidRequest, match="decodes images itself"):
            backend.predict([np.zeros((SIDE, SIDE, 3), np.uint8)])
        return
    wrong = {
        r"shape is \[8, 8, 3\], but the model takes \[16, 16, 3\]": np.zeros((8, 8, 3), np.uint8),
        r"shape is \[16, 16\], but the model takes \[": np.zeros((SIDE, SIDE), np.float32),
        r"takes pixels": encoded("red"),
    }
    for message, image in wrong.items():
        with pytest.raises(InvalidRequest, match=message):
            backend.predict([item(backend, "red"), image])


def test_it_says_what_it_is(files: ModelFiles, backend: Backend) -> None:
    assert re.match(r"[a-z][a-z ]* \d+\.\d+", backend.framework)
    assert backend.device == "cpu"
    framework, suffix = files.manifest.framework, files.path.suffix
    if framework is Framework.PYTHON:
        assert backend.platform == "python"
    elif framework is Framework.OPENVINO and suffix != ".xml":
        assert backend.platform == f"openvino_{suffix[1:]}"
    else:
        assert backend.platform == PLATFORMS[suffix]
    wanted = backend.input
    if not wanted.encoded:
        assert (wanted.height, wanted.width, wanted.channels) == (SIDE, SIDE, 3)
    assert wanted.preprocessing.resize is files.manifest.preprocessing.resize


def test_warm_up_counts_the_classes(backend: Backend) -> None:
    assert warm_up(backend, 4) == 3


def test_a_second_version_outlives_the_first(files: ModelFiles) -> None:
    """As when a new version is loaded beside the one that serves, which is then unloaded."""
    old, new = load_backend(files, CPU), load_backend(files, CPU)
    expected = old.predict([item(old, "blue")])
    old.close()
    assert new.predict([item(new, "blue")]) == pytest.approx(expected, abs=1e-6)
    new.close()


def test_a_device_that_is_not_there(files: ModelFiles) -> None:
    if files.manifest.framework is Framework.PYTHON:
        load_backend(files, LoadConfig(device="cuda:99"))  # the class alone knows about devices
        return
    with pytest.raises(ConfigurationError, match="cuda:99"):
        load_backend(files, LoadConfig(device="cuda:99"))
