"""Every kind of Keras model, as a `.keras` file and as a SavedModel; and what cannot be served."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import ManifestOverrides, find_model
from tests.support.later import later

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

    from tests.support import keras_models as made
else:
    keras = later("keras")
    tf = later("tensorflow")
    made = later("tests.support.keras_models")

SIDE = 4
RED = np.full((SIDE, SIDE, 3), (250, 10, 20), np.uint8)
ANSWER = [[250, 10, 20]] * 3
BATCH = np.zeros((2, SIDE, SIDE, 3), np.float32)

KINDS = {
    "sequential": (lambda: keras.Sequential([made.image(), *made.layers()]), None),
    "sequential that was built": (lambda: made.built(), None),
    "sequential that was called": (lambda: made.called(keras.Sequential(made.layers())), None),
    "sequential of sequentials": (lambda: made.of_sequentials(), None),
    "functional": (lambda: made.functional(made.image()), None),
    "functional, input in a list": (lambda: made.functional([made.image()]), None),
    "functional, input in a dict": (
        lambda: made.functional({"pixels": made.image(name="pixels")}),
        None,
    ),
    "functional, output in a dict": (
        lambda: made.functional(made.image(), lambda scores, _: {"best": scores}),
        None,
    ),
    "functional, outputs by key": (
        lambda: made.functional(made.image(), lambda scores, sums: {"sums": sums, "best": scores}),
        "best",
    ),
    "functional, outputs by layer": (
        lambda: made.functional(made.image(), lambda scores, sums: [sums, scores]),
        "scores_layer",
    ),
    "subclassed": (lambda: made.called(made.Subclassed()), None),
    "subclassed, outputs by key": (lambda: made.called(made.Subclassed("dict")), "scores"),
    "subclassed, outputs by index": (lambda: made.called(made.Subclassed("list")), "1"),
    "subclassed, input in a dict": (
        lambda: made.called(made.Subclassed(), {"image": BATCH}),
        None,
    ),
}
# What a SavedModel calls them; a list's outputs have numbers of their own.
EXPORTED = {"scores_layer": "output_1", "1": "output_1"}


def scores_of(path: Path, output: str | None = None, size: int | None = None) -> list[list[float]]:
    overrides = ManifestOverrides(output_layer=output, image_size=size)
    backend = load_backend(find_model(path, name="model", overrides=overrides), LoadConfig())
    assert (backend.input.height, backend.input.width) == (SIDE, SIDE)
    scores = backend.predict([RED] * 3)
    backend.close()
    return scores.round(3).tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_served(kind: str, tmp_path: Path) -> None:
    make, output = KINDS[kind]
    model = make()
    for weights in model.weights:
        weights.assign([1, 1, 1])
    model.save(tmp_path / "model.keras")
    assert scores_of(tmp_path / "model.keras", output) == ANSWER
    model.export(tmp_path / "exported", verbose=False)
    assert scores_of(tmp_path / "exported", EXPORTED.get(output or "", output)) == ANSWER


def refusal(path: Path, **overrides) -> str:
    files = find_model(path, name="model", overrides=ManifestOverrides(**overrides))
    with pytest.raises(ConfigurationError) as caught:
        load_backend(files, LoadConfig())
    return str(caught.value)


def test_outputs_that_are_not_named(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    for make, known_outputs in (
        (KINDS["functional, outputs by key"][0], "(sums, best)"),
        (KINDS["functional, outputs by layer"][0], "(sums_layer, scores_layer)"),
        (KINDS["subclassed, outputs by key"][0], "(scores, sums)"),
        (KINDS["subclassed, outputs by index"][0], "(0, 1)"),
    ):
        make().save(path)
        assert f"has 2 outputs {known_outputs}: name one with output.name" in refusal(path)
        assert "has no output 'x'" in refusal(path, output_layer="x")


def test_several_inputs(tmp_path: Path) -> None:
    inputs = {"pixels": made.image(name="pixels"), "age": keras.Input((1,), name="age")}
    means = keras.layers.GlobalAveragePooling2D()(inputs["pixels"])
    model = keras.Model(inputs, keras.layers.Concatenate()([means, inputs["age"]]))
    model.save(tmp_path / "model.keras")
    assert "has 2 inputs (age, pixels): only a model with one input" in refusal(
        tmp_path / "model.keras"
    )
    model.export(tmp_path / "exported", verbose=False)
    assert "has 2 inputs (" in refusal(tmp_path / "exported", input_layer="pixels")


def test_a_model_that_was_never_built(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.warns(UserWarning, match="has not yet been built"):
        keras.Sequential(made.layers()).save(path)
    assert "write height, width, channels (3 or 1) and layout" in refusal(path)
    assert "saved before it was built, so its weights are not in the file" in refusal(
        path, image_size=SIDE
    )
    with pytest.warns(UserWarning, match="has not yet been built"):
        keras.Sequential(made.layers()[:1]).save(path)  # needs no weights
    assert scores_of(path, size=SIDE) == ANSWER


def test_classes_that_are_not_known_here(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    made.called(made.Subclassed()).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    renamed = entries["config.json"].replace(b"Subclassed", b"Elsewhere")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**entries, "config.json": renamed}.items():
            archive.writestr(name, content)
    text = refusal(path)
    assert "Could not locate class 'Elsewhere'" in text
    assert "layers or functions of its own, which are not in the file" in text
    assert 'model.export("FOLDER")' in text


def test_the_cause_is_shown_and_not_only_the_first_line(tmp_path: Path) -> None:
    """Keras says "could not be deserialized", writes the configuration, and then why."""
    path = tmp_path / "model.keras"
    keras.Sequential([made.image(), keras.layers.Dense(2, name="last")]).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(entries["config.json"])
    config["config"]["layers"][1]["config"]["quantum"] = True
    entries["config.json"] = json.dumps(config).encode()
    entries["metadata.json"] = b'{"keras_version": "9.1.0"}'
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    text = refusal(path)
    assert "Unrecognized keyword arguments passed to Dense: {'quantum': True}" in text
    assert f"written by Keras 9.1.0, and this is Keras {keras.__version__}" in text
    assert len(text) < 1600
    assert "\n" not in text


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    model = keras.Sequential([made.image(), keras.layers.Lambda(lambda x: x), *made.layers()])
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        text = refusal(tmp_path / name)
        assert "holds Python code (a Lambda layer), which is not run from there" in text
        assert 'model.export("FOLDER")' in text


def test_weights_without_a_model(tmp_path: Path) -> None:
    model = made.built()
    model.save_weights(tmp_path / "model.weights.h5")
    old = tmp_path / "old.h5"
    with h5py.File(old, "w") as file:  # as save_weights of Keras 2 writes
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense")
    for path in (tmp_path / "model.weights.h5", old):
        text = refusal(path)
        assert "holds only the weights of a Keras model" in text
        assert 'model.load_weights(FILE) and model.save("model.keras")' in text
    with h5py.File(tmp_path / "table.h5", "w") as file:
        file.create_dataset("numbers", data=[1, 2])
    assert "is an HDF5 file, but not a model of Keras" in refusal(tmp_path / "table.h5")
    (tmp_path / "text.h5").write_text("this is not HDF5")
    assert "text.h5 cannot be loaded" in refusal(tmp_path / "text.h5")


def test_weights_beside_a_model_do_not_count(tmp_path: Path) -> None:
    model = made.built()
    model.save_weights(tmp_path / "a.weights.h5")
    assert find_model(tmp_path, name="m").path.name == "a.weights.h5"  # whose error says it
    model.save(tmp_path / "b.h5")
    assert find_model(tmp_path, name="m").path.name == "b.h5"
    model.save(tmp_path / "c.keras")
    assert find_model(tmp_path, name="m").path.name == "c.keras"


def test_one_signature_of_another_name(tmp_path: Path) -> None:
    module: Any = tf.Module()
    module.run = tf.function(
        lambda pixels: {"means": tf.reduce_mean(pixels, [1, 2])},
        input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)],
    )
    tf.saved_model.save(module, str(tmp_path / "one"), signatures={"classify": module.run})
    assert scores_of(tmp_path / "one") == ANSWER
    both = {"classify": module.run, "other": module.run}
    tf.saved_model.save(module, str(tmp_path / "two"), signatures=both)
    assert "has no signature 'serving_default' (it has: " in refusal(tmp_path / "two")
