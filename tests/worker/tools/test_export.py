"""ONNX versions of TensorFlow's models: the same answers, compared, whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import onnx
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import ImageInput, LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import BatchSpec, Framework, Layout, Preprocessing
from fingerpost.worker.tools.export import Comparison, compare, export_onnx
from fingerpost.worker.tools.sample_images import image_files, sample_images
from tests.support.builders.onnx import channels_first
from tests.support.colours import LABELS, SIDE, Models, encoded
from tests.support.later import later

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = later("tensorflow")

CPU = LoadConfig(device="cpu")
PICTURES = list(sample_images(4))


@pytest.mark.parametrize("kind", ["saved_model", "keras", "frozen_pixels"])
def test_every_kind_answers_as_before(models: Models, tmp_path: Path, kind: str) -> None:
    files = find_model(getattr(models, kind))
    found = export_onnx(files, tmp_path / "new" / "8", PICTURES, tolerance=1e-4)
    assert (found.images, found.agreed) == (4, 4)
    assert found.difference <= 1e-4 < found.variety
    made = find_model(tmp_path / "new")
    assert (made.version, made.labels) == ("8", LABELS)
    assert made.manifest.framework is Framework.ONNX
    backend = load_backend(made, CPU)
    assert (backend.input.height, backend.input.layout) == (SIDE, Layout.NHWC)
    for count in (1, 5):  # any batch
        red = np.full((SIDE, SIDE, 3), (250, 10, 10), np.uint8)
        assert backend.predict([red] * count).argmax(axis=1).tolist() == [0] * count
    model = onnx.load(tmp_path / "new" / "8" / "model.onnx")
    assert [end.name for end in (*model.graph.input, *model.graph.output)] == ["image", "scores"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["8"]  # no scratch left


def test_preprocessing_and_batches_are_taken_over(models: Models, tmp_path: Path) -> None:
    files = find_model(models.keras)
    manifest = msgspec.structs.replace(
        files.manifest,
        preprocessing=Preprocessing(mean=3.0, std=2.0),
        batch=BatchSpec(max=4),
    )
    files = dataclasses.replace(files, manifest=manifest)
    export_onnx(files, tmp_path / "out", PICTURES, tolerance=1e-4)
    made = find_model(tmp_path / "out").manifest
    assert (made.preprocessing, made.batch) == (manifest.preprocessing, manifest.batch)


def test_nothing_is_written_over_the_tolerance(models: Models, tmp_path: Path) -> None:
    files = find_model(models.frozen_pixels)
    found = export_onnx(files, tmp_path / "out", PICTURES, tolerance=-1.0)
    assert found.images == 4
    assert list(tmp_path.iterdir()) == []


def save(folder: Path, function: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """A SavedModel of one function of the channels' means / 255."""
    module: Any = tf.Module()
    signature = [tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)]
    module.f = tf.function(
        lambda pixels: function(tf.reduce_mean(pixels, [1, 2]) / 255), input_signature=signature
    )
    tf.saved_model.save(module, str(folder), signatures=module.f)


def test_gelu(tmp_path: Path) -> None:
    """It is made of an operator that ONNX does not have, nor tf2onnx know."""
    save(tmp_path / "gelu", lambda means: tf.nn.gelu(means * 4 - 2))
    found = export_onnx(find_model(tmp_path / "gelu"), tmp_path / "out", PICTURES, tolerance=1e-5)
    assert found.difference <= 1e-5 < found.variety


def test_clear_errors(models: Models, tmp_path: Path) -> None:
    def refused(path: Path, message: str, out: Path = tmp_path / "out") -> None:
        with pytest.raises(ConfigurationError, match=message):
            export_onnx(find_model(path), out, PICTURES, tolerance=1e-3)

    refused(models.keras, "exists already", out=tmp_path)
    refused(models.frozen_jpeg, "decodes images itself, which ONNX cannot")
    (tmp_path / "onnx").mkdir()
    channels_first(tmp_path / "onnx")
    refused(tmp_path / "onnx", "is of framework 'onnx'")
    save(tmp_path / "unknown", tf.math.bessel_i0)
    refused(tmp_path / "unknown", "unknown cannot be converted to ONNX: .*BesselI0")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["onnx", "unknown"]


class Means:
    """Scores are the channels' means, times a factor, plus something."""

    framework = platform = device = "test"
    input = ImageInput(height=4, width=4)

    def __init__(self, *factors: float) -> None:
        self.factors = factors

    def predict(self, images: Sequence[Any]) -> np.ndarray:
        return np.stack(images).mean(axis=(1, 2), dtype=np.float32)[:, : len(self.factors)] * (
            np.array(self.factors, np.float32)
        )

    def close(self) -> None:
        pass


def test_a_comparison() -> None:
    images = [encoded("red"), b"no image", encoded("blue"), encoded("green")]
    found = compare(Means(1, 1, 1), Means(1, 1, 0.9), images)
    # The largest score is 250, of blue; and no color but itself has the most of it.
    assert found == Comparison(images=3, agreed=3, difference=found.difference, variety=0.96)
    assert found.difference == pytest.approx(0.1)
    assert compare(Means(1, 1, 1), Means(1, 1, 0), images).agreed == 2
    alike = compare(Means(1, 1, 1), Means(1, 1, 1), images[:1] * 20)
    assert (alike.images, alike.agreed, alike.difference, alike.variety) == (20, 20, 0, 0)
    with pytest.raises(ConfigurationError, match="not have the same classes: 3 and 2"):
        compare(Means(1, 1, 1), Means(1, 1), images)
    with pytest.raises(ConfigurationError, match="none of the images can be decoded"):
        compare(Means(1), Means(1), [b"x"])


def test_images_to_try_a_model_on(tmp_path: Path) -> None:
    assert list(sample_images(2, seed=3)) == list(sample_images(2, seed=3))
    assert len(set(sample_images(5))) == 5
    (tmp_path / "deep").mkdir()
    for number in range(10):
        (tmp_path / "deep" / f"{number}.PNG").write_bytes(bytes([number]))
    (tmp_path / "notes.txt").write_text("x")
    assert image_files(tmp_path, 4) == [b"\0", b"\3", b"\6", b"\x09"]
    assert len(image_files(tmp_path, 99)) == 10
    with pytest.raises(ConfigurationError, match="no images in"):
        image_files(tmp_path / "none", 4)
