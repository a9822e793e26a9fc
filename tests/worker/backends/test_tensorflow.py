"""What is TensorFlow's own: its files, their ends, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from fingerpost.registry import ConfigurationError
from fingerpost.worker.backends import tensorflow
from fingerpost.worker.backends.base import LoadOptions
from fingerpost.worker.backends.tensorflow import TensorFlowBackend, load
from fingerpost.worker.manifest import Framework, InputSpec, Manifest, OutputSpec
from fingerpost.worker.modelfiles import ManifestOverrides, find_model
from tests.worker.colours import SIDE, Models

RED = np.full((SIDE, SIDE, 3), (250, 10, 10), np.uint8)


def load_from(path: Path, **overrides: object) -> TensorFlowBackend:
    return load(find_model(path, overrides=ManifestOverrides(**overrides)), LoadOptions())


def test_explicit_layers_mean_and_std(models: Models) -> None:
    backend = load_from(
        models.frozen_pixels, input_layer="input:0", output_layer="final_result", input_std=1.0
    )
    nearly = np.asarray(Image.new("RGB", (SIDE, SIDE), (2, 1, 0)))
    scores = backend.predict([np.zeros((SIDE, SIDE, 3), np.uint8), nearly])
    assert scores[0] == pytest.approx([1 / 3] * 3)
    # Not divided by 255: already two gray levels are certainty.
    assert scores[1][0] > 0.99


def test_weights_as_constants_and_as_variables_answer_alike(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = load_from(models.saved_model).predict([RED])
    monkeypatch.setattr(tensorflow, "_MOST_CONSTANTS", 0)
    assert load_from(models.saved_model).predict([RED]) == pytest.approx(constants, abs=1e-6)


class _TwoEnds(tf.Module):
    """Gives two outputs; with a table, which cannot be made a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, name="image")])
    def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        looked_up = self.table.lookup(tf.constant([1], tf.int64))
        means = tf.reduce_mean(pixels, [1, 2])
        return {"scores": means * 0 + looked_up, "means": means}


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "two-ends"
    module = _TwoEnds()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    return folder


def test_one_of_two_outputs_and_an_open_size(two_ends: Path) -> None:
    backend = load_from(two_ends, output_layer="means", image_size=SIDE, input_layer="image")
    assert (backend.input.height, backend.input.width) == (SIDE, SIDE)
    assert backend.predict([RED]).tolist() == [[250, 10, 10]]
    scores = load_from(two_ends, output_layer="scores", image_size=SIDE).predict([RED])
    assert scores.tolist() == [[-1] * 3]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, r"has 2 outputs \([a-z, ]+\): name one with output.name .*--output-layer"),
        ({"output_layer": "x"}, r"has no output 'x' \(output.name\); it has (means|scores), "),
        ({"output_layer": "means", "input_layer": "x"}, r"has no input 'x' .*it has image"),
        ({"output_layer": "means"}, "takes images of any size: choose one with --image-size"),
    ],
)
def test_ends_that_are_not_told(two_ends: Path, overrides: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_from(two_ends, **overrides)


def test_a_manifest_that_contradicts_the_graph(models: Models) -> None:
    files = find_model(models.saved_model)
    manifest = msgspec.structs.replace(files.manifest, input=InputSpec(height=SIDE + 1))
    with pytest.raises(ConfigurationError, match="input.height is 17 .*the model takes 16"):
        load(dataclasses.replace(files, manifest=manifest), LoadOptions())
    manifest = Manifest(framework=Framework.TENSORFLOW, output=OutputSpec(name="softmax"))
    with pytest.raises(ConfigurationError, match="has no output 'softmax'"):
        load(dataclasses.replace(files, manifest=manifest), LoadOptions())


def test_damaged_files(models: Models, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pb"
    broken.write_bytes(b"this is no graph")
    copy = tmp_path / "cut"
    shutil.copytree(models.saved_model, copy)
    (copy / "7" / "saved_model.pb").write_bytes(b"garbage")
    keras = tmp_path / "cut.keras"
    keras.write_bytes(models.keras.read_bytes()[:100])
    unsigned = tmp_path / "unsigned"
    tf.saved_model.save(tf.Module(), str(unsigned))
    for path, message in (
        (broken, r"broken.pb is no frozen graph"),
        (copy, r"SavedModel .* cannot be loaded"),
        (keras, r"cut.keras cannot be loaded"),
        (unsigned, r"no signature 'serving_default' \(it has: none\)"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_from(path)


def test_tensors_that_are_not_there(models: Models) -> None:
    with pytest.raises(ConfigurationError, match=r"no tensor 'final_rezult:0'.*final_result"):
        load_from(models.frozen_jpeg, output_layer="final_rezult")
    with pytest.raises(ConfigurationError, match=r"--input-layer"):
        load_from(models.frozen_pixels, input_layer="nonsense:0")


def test_settings_that_come_too_late(models: Models) -> None:
    load_from(models.saved_model)
    with pytest.raises(ConfigurationError, match="device and threads once in a process"):
        load(find_model(models.saved_model), LoadOptions(threads=3))
