"""TensorFlow's kinds of models, with a manifest and without."""

from __future__ import annotations

from pathlib import Path

from fingerpost.worker.models.manifest import (
    MANIFEST,
    Activation,
    ChannelOrder,
    Framework,
    InputSpec,
    Manifest,
    OutputSpec,
    Preprocessing,
    write_manifest,
)
from tests.support.colours import SIDE, write_frozen_graph, write_keras, write_saved_model


def trained(folder: Path) -> None:
    """As `train` writes it: uint8, and a manifest."""
    write_saved_model(folder, dtype="uint8")
    manifest = Manifest(
        framework=Framework.TENSORFLOW,
        labels="labels.txt",
        input=InputSpec(height=SIDE, width=SIDE, channels=3),
    )
    write_manifest(folder / MANIFEST, manifest)


def scaled(folder: Path) -> None:
    """Blue first and -1..1, with logits: the manifest has to put all that right."""
    import tensorflow as tf

    class Scaled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)])
        def __call__(self, pixels):
            return tf.reverse(tf.reduce_mean(pixels * 127.5 + 127.5, [1, 2]), [1]) / 16

    module = Scaled()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    (folder / "colours.txt").write_text("red\ngreen\nblue\n")
    manifest = Manifest(
        framework=Framework.TENSORFLOW,
        labels="colours.txt",
        preprocessing=Preprocessing(order=ChannelOrder.BGR, mean=127.5, std=(127.5,) * 3),
        output=OutputSpec(activation=Activation.SOFTMAX),
    )
    write_manifest(folder / MANIFEST, manifest)


BUILDERS = {
    "tensorflow-saved-model": write_saved_model,
    "tensorflow-trained": trained,
    "tensorflow-scaled": scaled,
    "tensorflow-fixed-batch": lambda folder: write_keras(folder, batch_size=4),
    "tensorflow-keras": write_keras,
    "tensorflow-frozen-pixels": lambda folder: write_frozen_graph(folder, encoded_input=False),
    "tensorflow-frozen-jpeg": lambda folder: write_frozen_graph(folder, encoded_input=True),
}
