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
    """One model of each kind that TensorFlow has, as a worker's tests use them."""
    saved = root / "colours" / "7"
    write_saved_model(saved)
    keras = root / "keras-colours"
    write_keras(keras)
    for name in ("frozen-pixels", "frozen-jpeg"):
        write_frozen_graph(root / name, encoded_input=name == "frozen-jpeg")
    return Models(
        saved_model=root / "colours",
        keras=keras / "colours.keras",
        frozen_pixels=root / "frozen-pixels",
        frozen_jpeg=root / "frozen-jpeg",
    )


def network(**wanted):
    """The Keras model; `wanted` goes to its input, such as `dtype` or `batch_size`."""
    from fingerpost.worker.backends.tensorflow.load import import_tensorflow

    import_tensorflow(keras=True)
    import keras

    inputs = keras.Input((SIDE, SIDE, 3), **wanted)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.ops.cast(inputs, "float32"))
    outputs = keras.layers.Dense(3, activation="softmax", use_bias=False)(pooled)
    model = keras.Model(inputs, outputs)
    model.layers[-1].set_weights([np.eye(3, dtype=np.float32) / 16])
    return model


def write_saved_model(folder: Path, **wanted) -> None:
    network(**wanted).export(folder, verbose=False)
    write_labels(folder)


def write_keras(folder: Path, **wanted) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    network(**wanted).save(folder / "colours.keras")
    write_labels(folder)


def write_frozen_graph(folder: Path, *, encoded_input: bool) -> None:
    """As the retraining tutorial does it: output_graph.pb, output_labels.txt."""
    from fingerpost.worker.backends.tensorflow.load import import_tensorflow

    tf = import_tensorflow(keras=True)
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
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output_graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    (folder / "output_labels.txt").write_text("\n".join(LABELS) + "\n")


def write_labels(folder: Path) -> None:
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
