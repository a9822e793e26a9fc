"""What is TensorFlow's own: its files, their ends, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.tensorflow import backend as tensorflow
from fingerpost.worker.backends.tensorflow.backend import TensorFlowBackend, load
from fingerpost.worker.models.files import ManifestOverrides, find_model
from fingerpost.worker.models.manifest import Framework, InputSpec, Manifest, OutputSpec
from tests.support.colours import SIDE, Models
from tests.support.later import later

if TYPE_CHECKING:
    import tensorflow as tf
else:
    tf = later("tensorflow")

RED = np.full((SIDE, SIDE, 3), (250, 10, 10), np.uint8)


def load_from(path: Path, **overrides: Any) -> TensorFlowBackend:
    return load(find_model(path, overrides=ManifestOverrides(**overrides)), LoadConfig())


def test_explicit_layers_mean_and_std(models: Models) -> None:
    backend = load_from(
        models.frozen_pixels, input_layer="input:0", output_layer="final_result", input_std=1.0
    )
    nearly = np.asarray(Image.new("RGB", (SIDE, SIDE), (2, 1, 0)))
    scores = backend.predict([np.zeros((SIDE, SIDE, 3), np.uint8), nearly])
    assert scores[0] == pytest.approx([1 / 3] * 3)
    # Not divided by 255: already two gray levels are certainty.
    assert scores[1][0] > 0.99


def test_an_input_in_the_middle_of_a_graph(models: Models) -> None:
    backend = load_from(models.frozen_jpeg, input_layer="ResizeBilinear:0", input_std=1.0)
    assert backend.predict([RED]).argmax() == 0


def test_weights_as_constants_and_as_variables_answer_alike(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tf.saved_model, "load", None)  # which is slow, and not needed
    quick = load_from(models.saved_model).predict([RED])
    monkeypatch.undo()
    monkeypatch.setattr(tensorflow, "constant_graph", None)
    assert load_from(models.saved_model).predict([RED]).tolist() == quick.tolist()
    monkeypatch.setattr(tensorflow, "_MOST_CONSTANTS", 0)
    assert load_from(models.saved_model).predict([RED]) == pytest.approx(quick, abs=1e-6)


def _save_loop(folder: Path) -> None:
    """Its variable is read within a loop, so that it cannot be written into its place."""

    class Loop(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = tf.Variable(tf.eye(3) * 2)

        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)])
        def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
            means = tf.reduce_mean(pixels, [1, 2])
            for _ in tf.range(3):
                means = means @ self.weights
            return means

    module = Loop()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def _save_as_tensorflow_1_did(folder: Path, *, resource: bool) -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, [None, SIDE, SIDE, 3])
        weights = v1.get_variable("weights", initializer=tf.eye(3) * 8, use_resource=resource)
        scores = tf.reduce_mean(image, [1, 2]) @ weights
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(str(folder))
        ends = {"inputs": {"image": image}, "outputs": {"scores": scores}}
        signature = v1.saved_model.predict_signature_def(**ends)
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()


@pytest.mark.parametrize("kind", ["loop", "resource", "reference"])
def test_other_kinds_of_variables(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    if kind == "loop":
        _save_loop(folder)
    else:
        _save_as_tensorflow_1_did(folder, resource=kind == "resource")
    assert load_from(folder).predict([RED]).tolist() == [[2000, 80, 80]]


def _save_two_ends(folder: Path) -> None:
    """Gives two outputs; with a table, which cannot be made a constant."""
    image = tf.TensorSpec([None, None, None, 3], tf.float32, name="image")

    class TwoEnds(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, -1.0)

        @tf.function(input_signature=[image])
        def __call__(self, pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            looked_up = self.table.lookup(tf.constant([1], tf.int64))
            means = tf.reduce_mean(pixels, [1, 2])
            return {"scores": means * 0 + looked_up, "means": means}

    module = TwoEnds()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


@pytest.fixture(scope="module")
def two_ends(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "two-ends"
    _save_two_ends(folder)
    return folder


def test_one_of_two_outputs_and_an_open_size(two_ends: Path) -> None:
    backend = load_from(two_ends, output_layer="means", image_size=SIDE, input_layer="image")
    assert (backend.input.height, backend.input.width) == (SIDE, SIDE)
    assert backend.predict([RED]).tolist() == [[250, 10, 10]]
    scores = load_from(two_ends, output_layer="scores", image_size=SIDE).predict([RED])
    assert scores.tolist() == [[-1] * 3]


def _save_of_unknown_rank(folder: Path, kind: str) -> None:
    """As `optimize_for_inference` leaves a graph: its placeholder has no shape."""
    if kind == "frozen graph":
        v1 = tf.compat.v1
        with tf.Graph().as_default() as graph:
            image = v1.placeholder(tf.float32, None, name="input")
            tf.reduce_mean(image, [1, 2], name="final_result")
        (folder / "optimized_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
        return
    module: Any = tf.Module()
    unknown: Any = None
    module.run = tf.function(
        lambda pixels: tf.reduce_mean(pixels, [1, 2]),
        input_signature=[tf.TensorSpec(unknown, tf.float32)],
    )
    tf.saved_model.save(module, str(folder), signatures=module.run)


@pytest.mark.parametrize("kind", ["frozen graph", "SavedModel"])
def test_an_input_of_unknown_rank(tmp_path: Path, kind: str) -> None:
    _save_of_unknown_rank(tmp_path, kind)
    with pytest.raises(ConfigurationError, match="write height, width, channels .*model.toml"):
        load(find_model(tmp_path, name="poets"), LoadConfig())
    (tmp_path / "model.toml").write_text(
        f'framework = "tensorflow"\n[input]\nheight = {SIDE}\nwidth = {SIDE}\nchannels = 3\n'
    )
    backend = load(find_model(tmp_path, name="poets"), LoadConfig())
    assert backend.input.tensor_shape == (SIDE, SIDE, 3)
    assert backend.predict([RED] * 2).tolist() == [[250, 10, 10]] * 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, r"has 2 outputs \([a-z, ]+\): name one with output.name .*--output-layer"),
        ({"output_layer": "x"}, r"has no output 'x' \(output.name\); it has (means|scores), "),
        ({"output_layer": "means", "input_layer": "x"}, r"has no input 'x' .*it has image"),
        ({"output_layer": "means"}, "which image size it takes: choose one with --image-size"),
    ],
)
def test_ends_that_are_not_told(two_ends: Path, overrides: dict, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_from(two_ends, **overrides)


def test_a_manifest_that_contradicts_the_graph(models: Models) -> None:
    files = find_model(models.saved_model)
    manifest = msgspec.structs.replace(files.manifest, input=InputSpec(height=SIDE + 1))
    with pytest.raises(ConfigurationError, match="input.height is 17 .*the model takes 16"):
        load(dataclasses.replace(files, manifest=manifest), LoadConfig())
    manifest = Manifest(framework=Framework.TENSORFLOW, output=OutputSpec(name="softmax"))
    with pytest.raises(ConfigurationError, match="has no output 'softmax'"):
        load(dataclasses.replace(files, manifest=manifest), LoadConfig())


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
        (broken, r"broken.pb is not a frozen graph"),
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
    with pytest.raises(ConfigurationError, match="device and threads once per process"):
        load(find_model(models.saved_model), LoadConfig(threads=3))
