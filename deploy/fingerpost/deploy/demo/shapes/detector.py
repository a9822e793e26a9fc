"""A tiny detector, trained in half a minute: a grid of cells that each say what is in them.

It is what a YOLO is (Redmon et al., arXiv:1506.02640), at its smallest: the cell in which the
middle of a shape lies says where its edges are and what it is. Its output has the layout `yolov5`.
"""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.deploy.demo.shapes.drawings import SHAPES, Drawing, draw
from fingerpost.worker.backends.base import ImageInput
from fingerpost.worker.images.preprocess import fit_placed
from fingerpost.worker.models.manifest import (
    MANIFEST,
    BatchSpec,
    Framework,
    InputSpec,
    Manifest,
    Preprocessing,
    Resize,
    write_manifest,
)
from fingerpost.worker.models.tasks import DetectionLayout, DetectionSpec, Task

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["train_detector"]

_SIDE: Final = 64
_CELLS: Final = 8
_CELL: Final = _SIDE // _CELLS
_PREPROCESSING: Final = Preprocessing(resize=Resize.PAD)
_BATCH: Final = 32
_IMAGES: Final = 1500
_EPOCHS: Final = 8
_SEED: Final = 11
# How much an error of a pixel weighs, and a cell without a shape, of which there are many.
_PIXEL: Final = 0.1
_EMPTY: Final = 0.3


def train_detector(out: Path) -> Path:
    """Train on drawings, and write version 1 of the model into `out`; blocks.

    Returns:
        The version's folder.
    """
    from fingerpost.worker.backends.tensorflow.load import import_tensorflow

    import_tensorflow(keras=True)
    import keras

    keras.utils.set_random_seed(_SEED)
    rng = random.Random(_SEED)
    examples = [_example(draw(rng, half=True)) for _ in range(_IMAGES)]
    model = _network(keras)
    steps = _EPOCHS * -(-_IMAGES // _BATCH)
    rate: Any = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(keras.optimizers.Adam(rate), loss=_loss(keras))
    model.fit(
        np.stack([image for image, _ in examples]).astype(np.float32),
        np.stack([target for _, target in examples]),
        batch_size=_BATCH,
        epochs=_EPOCHS,
        verbose=0,
    )
    folder = out / "1"
    shutil.rmtree(folder, ignore_errors=True)
    model.export(folder, verbose=False)
    (folder / "labels.txt").write_text("\n".join(SHAPES) + "\n", encoding="utf-8")
    manifest = Manifest(
        framework=Framework.TENSORFLOW,
        task=Task.DETECTION,
        labels="labels.txt",
        input=InputSpec(height=_SIDE, width=_SIDE, channels=3),
        preprocessing=_PREPROCESSING,
        batch=BatchSpec(max=32),
        detection=DetectionSpec(layout=DetectionLayout.YOLOV5, min_score=0.05),
    )
    write_manifest(folder / MANIFEST, manifest)
    return folder


def _example(drawing: Drawing) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The image as a worker gives it to the model, and for each cell what is in it.

    That is: middle, width and height in pixels of the model's input, whether there is a shape, and
    which.
    """
    wanted = ImageInput(height=_SIDE, width=_SIDE, preprocessing=_PREPROCESSING)
    pixels, placement = fit_placed(np.asarray(drawing.image), wanted)
    scale = placement.size[0] / drawing.image.width, placement.size[1] / drawing.image.height
    found = np.zeros((_CELLS * _CELLS, 5 + len(SHAPES)), np.float32)
    for name, (left, top, right, bottom) in drawing.shapes:
        across = (left + right) / 2 * scale[0] + placement.offset[0]
        down = (top + bottom) / 2 * scale[1] + placement.offset[1]
        cell = int(down // _CELL) * _CELLS + int(across // _CELL)
        found[cell, :4] = across, down, (right - left) * scale[0], (bottom - top) * scale[1]
        found[cell, 4] = 1
        found[cell, 5 + SHAPES.index(name)] = 1
    return pixels, found


def _network(keras: Any) -> Any:
    layers, ops = keras.layers, keras.ops

    def convolution(value: Any, filters: int, **how: Any) -> Any:
        value = layers.Conv2D(filters, 3, padding="same", use_bias=False, **how)(value)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(value))

    inputs = keras.Input((_SIDE, _SIDE, 3))
    value = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    value = convolution(value, 12, strides=2)
    value = convolution(value, 24, strides=2)
    value = convolution(value, 24)
    value = convolution(value, 48, strides=2)
    value = convolution(value, 48)
    value = convolution(value, 48, dilation_rate=2)  # so that a cell sees a whole shape
    raw = layers.Conv2D(5 + len(SHAPES), 1)(value)
    raw = layers.Reshape((_CELLS * _CELLS, 5 + len(SHAPES)))(raw)
    places = np.arange(_CELLS * _CELLS)
    corners = np.stack([places % _CELLS, places // _CELLS], axis=1) * float(_CELL)
    centres = ops.sigmoid(raw[..., :2]) * _CELL + corners.astype(np.float32)
    sizes = ops.sigmoid(raw[..., 2:4]) * (_SIDE / 2)
    outputs = layers.Concatenate()(
        [centres, sizes, ops.sigmoid(raw[..., 4:5]), ops.softmax(raw[..., 5:])]
    )
    return keras.Model(inputs, outputs)


def _loss(keras: Any) -> Any:
    ops = keras.ops

    def loss(expected: Any, found: Any) -> Any:
        there = expected[..., 4]
        boxes = ops.sum(ops.abs(expected[..., :4] - found[..., :4]), -1) * _PIXEL
        share = ops.clip(found[..., 4], 1e-6, 1 - 1e-6)
        object_ = -(there * ops.log(share) + _EMPTY * (1 - there) * ops.log(1 - share))
        right = ops.sum(expected[..., 5:] * ops.log(found[..., 5:] + 1e-6), -1)
        return ops.sum(object_ + there * (boxes - right), -1)

    return loss
