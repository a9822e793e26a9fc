"""The colours model in Caffe.

A `.caffemodel` is a protobuf message. The few fields that are needed are written by hand, by the
numbers that caffe.proto gives them, because no maintained package has that file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.colours import SIDE, write_labels

LAYERS = """
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc"
        inner_product_param { num_output: 3 bias_term: false } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
INPUT_LAYER = f"""
name: "colours"  # shape {{ dim: 9 }} in a comment does not count
layer {{ name: "data" type: "Input" top: "data"
        input_param {{ shape: {{ dim: 1 dim: 3 dim: {SIDE} dim: {SIDE} }} }} }}
"""
OLD_INPUT = f"""
name: "colours"
input: "data"
input_dim: 10
input_dim: 3
input_dim: {SIDE}
input_dim: {SIDE}
"""
BGR = 'framework = "caffe"\n[preprocessing]\norder = "BGR"\n'


def write(folder: Path, prototxt: str, toml: str = BGR) -> None:
    (folder / "deploy.prototxt").write_text(prototxt)
    # Blue is first in the input and last among the labels.
    weights = np.eye(3, dtype=np.float32)[::-1] / 16
    (folder / "colours.caffemodel").write_bytes(_field(1, b"colours") + _layer("fc", weights))
    write_labels(folder)
    if toml:
        (folder / "model.toml").write_text(toml)


def input_layer(folder: Path) -> None:
    write(folder, INPUT_LAYER + LAYERS)


def old_input(folder: Path) -> None:
    write(folder, OLD_INPUT + LAYERS)


def _layer(name: str, weights: np.ndarray) -> bytes:
    """NetParameter.layer = 100; LayerParameter: name = 1, type = 2, blobs = 7."""
    shape = b"".join(_varint(side) for side in weights.shape)
    # BlobProto: data = 5, shape = 7; BlobShape: dim = 1, packed.
    blob = _field(7, _field(1, shape)) + _field(5, weights.tobytes())
    return _field(100, _field(1, name.encode()) + _field(2, b"InnerProduct") + _field(7, blob))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


BUILDERS: dict[str, Callable[[Path], None]] = {"caffe": input_layer, "caffe-old-input": old_input}
