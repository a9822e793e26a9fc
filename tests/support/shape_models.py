"""Models of each framework whose tensors have other axes than `[N, H, W, 3]`.

Each takes `image` and `offset` (`[3]`) and gives `means` (`[3]`, the image's means plus the offset)
and `same` (the image): of any size, with a batch fixed to 1, or without the axis of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.builders import litert, openvino
from tests.support.vision_models import save_onnx

SIDE = 8
SHAPES = ("any size", "batch of one", "no batch")


def onnx_model(folder: Path, shape: str) -> None:
    import numpy as np
    from onnx import helper

    batch: list[Any] = {"any size": ["N"], "batch of one": [1], "no batch": []}[shape]
    sides = ["H", "W"] if shape == "any size" else [SIDE, SIDE]
    first = len(batch)
    nodes = [
        helper.make_node("ReduceMean", ["image", "area"], ["plain"], keepdims=0),
        helper.make_node("Add", ["plain", "offset"], ["means"]),
        helper.make_node("Identity", ["image"], ["same"]),
    ]
    inputs = {"image": [*batch, 3, *sides], "offset": [*batch, 3]}
    save_onnx(folder, nodes, inputs, ["means", "same"], area=np.array([first + 1, first + 2]))


def torch_model(folder: Path, shape: str) -> None:
    import torch

    class Means(torch.nn.Module):
        def forward(self, image: torch.Tensor, offset: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"means": image.mean((-2, -1)) + offset, "same": image * 1.0}

    batch = {"any size": [2], "batch of one": [1], "no batch": []}[shape]
    axis = torch.export.Dim.DYNAMIC
    dynamic: Any = None
    if shape == "any size":
        dynamic = {"image": {0: axis, 2: axis, 3: axis}, "offset": {0: axis}}
    example = (torch.rand(*batch, 3, SIDE, SIDE), torch.rand(*batch, 3))
    program = torch.export.export(Means().eval(), example, dynamic_shapes=dynamic)
    torch.export.save(program, folder / "m.pt2")


def tensorflow_model(folder: Path, shape: str) -> None:
    import tensorflow as tf

    batch: list[int | None] = {"any size": [None], "batch of one": [1], "no batch": []}[shape]
    sides = [None, None] if shape == "any size" else [SIDE, SIDE]
    takes = [tf.TensorSpec([*batch, *sides, 3], tf.float32), tf.TensorSpec([*batch, 3], tf.float32)]

    class Means(tf.Module):
        @tf.function(input_signature=takes)
        def __call__(self, image, offset):
            means = tf.reduce_mean(image, [-3, -2]) + offset
            return {"means": means, "same": tf.identity(image)}

    module = Means()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def openvino_model(folder: Path, shape: str) -> None:
    onnx_model(folder, shape)
    openvino.convert(folder)


def litert_model(folder: Path, shape: str) -> None:
    tensorflow_model(folder, shape)
    litert.of_saved_model(folder)


SHAPE_MODELS: dict[str, Callable[[Path, str], None]] = {
    "litert": litert_model,
    "onnx": onnx_model,
    "openvino": openvino_model,
    "tensorflow": tensorflow_model,
    "torch": torch_model,
}


def write_shape_model(folder: Path, kind: str, shape: str) -> None:
    """A model of a framework with its `model.toml`."""
    folder.mkdir(parents=True, exist_ok=True)
    SHAPE_MODELS[kind](folder, shape)
    (folder / "model.toml").write_text(f'framework = "{kind}"\ntask = "tensors"\n')
