"""The colours model in TensorFlow Lite: of floats, with a batch of 1, and quantized."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.colours import SIDE, write_labels


def save_tflite(
    path: Path,
    module: Any,
    *,
    ends: str = "float32",
    samples: Sequence[Sequence[np.ndarray]] = (),
) -> None:
    """Write a `tf.Module` that has one `tf.function`, `__call__` with a signature.

    Args:
        path: of the file.
        module: the model.
        ends: the type of the inputs and outputs, if it is quantized.
        samples: inputs on which it is quantized; without any it is not.
    """
    import tensorflow as tf

    function = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    if samples:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(ends)
    path.write_bytes(converter.convert())


def of_saved_model(folder: Path, signature: str = "serving_default") -> None:
    """Make `m.tflite` of the SavedModel in a folder, which goes."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=[signature])
    content = converter.convert()
    (folder / "saved_model.pb").unlink()
    (folder / "fingerprint.pb").unlink(missing_ok=True)
    shutil.rmtree(folder / "variables")
    (folder / "m.tflite").write_bytes(content)


def colours(batch: int | None, *, scale: float = 1 / 16, offset: float = 0.0) -> Any:
    """The module: softmax of the mean of each channel times `scale`, of pixels plus `offset`."""
    import tensorflow as tf

    class Colours(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([batch, SIDE, SIDE, 3], tf.float32, "image")])
        def __call__(self, image):
            means = tf.reduce_mean(image, [1, 2]) + offset
            return tf.nn.softmax(tf.matmul(means, np.eye(3, dtype=np.float32) * scale))

    return Colours()


def floats(folder: Path) -> None:
    save_tflite(folder / "model.tflite", colours(None))
    write_labels(folder)


def batch_of_one(folder: Path) -> None:
    """As most TensorFlow Lite models are."""
    save_tflite(folder / "model.tflite", colours(1))
    write_labels(folder)


def samples(low: float, high: float) -> list[list[np.ndarray]]:
    """Images that reach from `low` to `high`, of one colour each."""
    images = np.full((3, 1, SIDE, SIDE, 3), low, np.float32)
    for channel, image in enumerate(images):
        image[..., channel] = high
    return [[image] for image in images]


def int8(folder: Path) -> None:
    """Of 0 to 1: pixels go in as they are, 128 less."""
    module = colours(1, scale=255 / 16)
    save_tflite(folder / "model.tflite", module, ends="int8", samples=samples(0, 1))
    write_labels(folder)


def uint8_scaled(folder: Path) -> None:
    """Of -1 to 1, as the manifest says it."""
    module = colours(None, scale=127.5 / 16, offset=1.0)
    save_tflite(folder / "model.tflite", module, ends="uint8", samples=samples(-1, 1))
    write_labels(folder)
    (folder / "model.toml").write_text(
        'framework = "litert"\n[preprocessing]\nmean = 127.5\nstd = 127.5\n'
    )


BUILDERS: dict[str, Callable[[Path], None]] = {
    "litert": floats,
    "litert-batch-of-one": batch_of_one,
    "litert-int8": int8,
    "litert-uint8-scaled": uint8_scaled,
}
