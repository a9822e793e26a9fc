"""Every kind of Keras model, as a `.keras` file and as a SavedModel; and what cannot be served."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import ManifestOverrides, find_model

SIDE = 4
RED = np.full((SIDE, SIDE, 3), (250, 10, 20), np.uint8)
ANSWER = [[250, 10, 20]] * 3
L = keras.layers


class Identity(L.Layer):
    """Has three weights, which must be read from the file: they are 1 there, and 0 before."""

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(input_shape[-1],), initializer="zeros")

    def call(self, values):
        return values * self.scale


# Layers of its own: a test's process knows them, as one that imports their module does.
known = keras.saving.register_keras_serializable("tests")
known(Identity)


@known
class Subclassed(keras.Model):
    def __init__(self, answer="tensor", **arguments):
        super().__init__(**arguments)
        self.answer = answer
        self.pool, self.scale = L.GlobalAveragePooling2D(), Identity()

    def get_config(self):
        return {"answer": self.answer}

    def call(self, images):
        means = self.scale(self.pool(images["image"] if isinstance(images, dict) else images))
        return {"dict": {"scores": means, "sums": means * 48}, "list": [means * 48, means]}.get(
            self.answer, means
        )


def layers() -> list[L.Layer]:
    return [L.GlobalAveragePooling2D(), Identity()]


def image(**given) -> Any:
    return keras.Input((SIDE, SIDE, 3), **given)


def called(model: keras.Model, argument=None) -> keras.Model:
    model(np.zeros((2, SIDE, SIDE, 3), np.float32) if argument is None else argument)
    return model


def built() -> keras.Model:
    model = keras.Sequential(layers())
    model.build((None, SIDE, SIDE, 3))
    return model


def of_sequentials() -> keras.Model:
    body = keras.Sequential([image(), Identity()])
    return keras.Sequential([image(), body, keras.Sequential(layers())])


def functional(inputs, pack: Callable = lambda scores, sums: scores) -> keras.Model:
    first = (
        next(iter(inputs.values())) if isinstance(inputs, dict) else keras.tree.flatten(inputs)[0]
    )
    means = Identity(name="scores_layer")(L.GlobalAveragePooling2D()(first))
    sums = L.Rescaling(48.0, name="sums_layer")(means)
    return keras.Model(inputs, pack(means, sums))


KINDS = {
    "sequential": (lambda: keras.Sequential([image(), *layers()]), None),
    "sequential that was built": (built, None),
    "sequential that was called": (lambda: called(keras.Sequential(layers())), None),
    "sequential of sequentials": (of_sequentials, None),
    "functional": (lambda: functional(image()), None),
    "functional, input in a list": (lambda: functional([image()]), None),
    "functional, input in a dict": (lambda: functional({"pixels": image(name="pixels")}), None),
    "functional, output in a dict": (
        lambda: functional(image(), lambda scores, _: {"best": scores}),
        None,
    ),
    "functional, outputs by key": (
        lambda: functional(image(), lambda scores, sums: {"sums": sums, "best": scores}),
        "best",
    ),
    "functional, outputs by layer": (
        lambda: functional(image(), lambda scores, sums: [sums, scores]),
        "scores_layer",
    ),
    "subclassed": (lambda: called(Subclassed()), None),
    "subclassed, outputs by key": (lambda: called(Subclassed("dict")), "scores"),
    "subclassed, outputs by index": (lambda: called(Subclassed("list")), "1"),
    "subclassed, input in a dict": (
        lambda: called(Subclassed(), {"image": np.zeros((2, SIDE, SIDE, 3), np.float32)}),
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
    inputs = {"pixels": image(name="pixels"), "age": keras.Input((1,), name="age")}
    means = L.GlobalAveragePooling2D()(inputs["pixels"])
    model = keras.Model(inputs, L.Concatenate()([means, inputs["age"]]))
    model.save(tmp_path / "model.keras")
    assert "has 2 inputs (age, pixels): only a model with one input" in refusal(
        tmp_path / "model.keras"
    )
    model.export(tmp_path / "exported", verbose=False)
    assert "has 2 inputs (" in refusal(tmp_path / "exported", input_layer="pixels")


def test_a_model_that_was_never_built(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.warns(UserWarning, match="has not yet been built"):
        keras.Sequential(layers()).save(path)
    assert "write height, width, channels (3 or 1) and layout" in refusal(path)
    assert "saved before it was built, so its weights are not in the file" in refusal(
        path, image_size=SIDE
    )
    with pytest.warns(UserWarning, match="has not yet been built"):
        keras.Sequential(layers()[:1]).save(path)  # needs no weights
    assert scores_of(path, size=SIDE) == ANSWER


def test_classes_that_are_not_known_here(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    called(Subclassed()).save(path)
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
    keras.Sequential([image(), L.Dense(2, name="last")]).save(path)
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
    model = keras.Sequential([image(), L.Lambda(lambda x: x), *layers()])
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        text = refusal(tmp_path / name)
        assert "holds Python code (a Lambda layer), which is not run from there" in text
        assert 'model.export("FOLDER")' in text


def test_weights_without_a_model(tmp_path: Path) -> None:
    model = built()
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
    model = built()
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
