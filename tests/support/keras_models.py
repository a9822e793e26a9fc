"""Models and layers of Keras in every form; each takes images, and gives their channels' means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

__all__ = [
    "SIDE",
    "Identity",
    "Subclassed",
    "built",
    "called",
    "functional",
    "image",
    "layers",
    "of_sequentials",
]

SIDE = 4
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
