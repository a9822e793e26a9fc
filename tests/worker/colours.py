"""Real small models, built once: a network that tells red, green and blue images apart.

Its weights are set by hand: the scores are softmax(mean of each channel / 16), so that the right
answer to any image is known.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("red", "green", "blue")
SIDE = 16
RGB = {
    "red": (250, 10, 10),
    "green": (10, 250, 10),
    "blue": (10, 10, 250),
    "black": (0, 0, 0),
}


def encoded(colour: str = "red", size: tuple[int, int] = (40, 30), form: str = "PNG", **save):
    out = io.BytesIO()
    Image.new("RGB", size, RGB[colour]).save(out, form, **save)
    return out.getvalue()


@dataclass(frozen=True)
class Models:
    saved_model: Path
    keras: Path
    frozen_pixels: Path
    frozen_jpeg: Path


def build(root: Path) -> Models:
    from fingerpost.worker.backends.tensorflow_import import import_tensorflow

    tf = import_tensorflow(keras=True)
    import keras

    inputs = keras.Input((SIDE, SIDE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    outputs = keras.layers.Dense(3, activation="softmax", use_bias=False)(pooled)
    network = keras.Model(inputs, outputs)
    network.layers[-1].set_weights([np.eye(3, dtype=np.float32) / 16])

    saved = root / "colours" / "7"
    network.export(saved, verbose=False)
    _write_labels(saved)
    keras_file = root / "keras-colours" / "colours.keras"
    keras_file.parent.mkdir()
    network.save(keras_file)
    _write_labels(keras_file.parent)
    return Models(
        saved_model=root / "colours",
        keras=keras_file,
        frozen_pixels=_freeze(tf, root / "frozen-pixels", encoded_input=False),
        frozen_jpeg=_freeze(tf, root / "frozen-jpeg", encoded_input=True),
    )


def _freeze(tf, folder: Path, *, encoded_input: bool) -> Path:
    """Write a graph as the retraining tutorial does: output_graph.pb, output_labels.txt."""
    v1 = tf.compat.v1
    graph = v1.Graph()
    with graph.as_default():
        if encoded_input:
            contents = v1.placeholder(tf.string, [], name="DecodeJpeg/contents")
            decoded = tf.raw_ops.DecodeJpeg(contents=contents, channels=3, name="DecodeJpeg")
            pixels = tf.expand_dims(tf.cast(decoded, tf.float32), 0)
            resized = v1.image.resize_bilinear(pixels, [SIDE, SIDE])
            scaled = resized / 255.0
        else:
            scaled = v1.placeholder(tf.float32, [None, SIDE, SIDE, 3], name="input")
        pooled = tf.reduce_mean(scaled, [1, 2])
        logits = tf.matmul(pooled, tf.constant(np.eye(3, dtype=np.float32) * 255 / 16))
        tf.nn.softmax(logits, name="final_result")
    folder.mkdir()
    (folder / "output_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "output_labels.txt").write_text("\n".join(LABELS) + "\n")
    return folder


def _write_labels(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
