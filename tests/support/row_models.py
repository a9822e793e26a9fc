"""The mean of each channel, of each framework, as the tasks of one row an image are tested on.

Every model gives the means of red, green and blue, from 0 to 255, times `SCALE`, minus 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.builders import litert, openvino
from tests.support.colours import SIDE

SCALE = np.float32(1 / 64)


def expected(pixels: np.ndarray) -> np.ndarray:
    """The row, float64 `[3]`, of pixels `[H, W, 3]`."""
    return pixels.astype(np.float64).mean((0, 1)) * float(SCALE) - 1


def write_onnx(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["image", "axes"], ["means"], keepdims=0),
            helper.make_node("Mul", ["means", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "less"], ["row"]),
        ],
        "means",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("row", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array([2, 3]), "axes"),
            numpy_helper.from_array(np.array(SCALE), "scale"),
            numpy_helper.from_array(np.array(-1, np.float32), "less"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "m.onnx")


def write_torch(folder: Path) -> None:
    import torch

    class Means(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) * float(SCALE) - 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        example = torch.rand(2, 3, SIDE, SIDE)
        torch.jit.save(torch.jit.trace(Means().eval(), example), folder / "m.pt")


def write_tensorflow(folder: Path) -> None:
    import tensorflow as tf

    class Means(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, SIDE, SIDE, 3], tf.float32)])
        def __call__(self, pixels):
            return tf.reduce_mean(pixels, [1, 2]) * SCALE - 1

    module = Means()
    tf.saved_model.save(module, str(folder), signatures=module.__call__)


def write_openvino(folder: Path) -> None:
    write_onnx(folder)
    openvino.convert(folder)


def write_litert(folder: Path) -> None:
    write_tensorflow(folder)
    litert.of_saved_model(folder)


def write_python(folder: Path) -> None:
    (folder / "means.py").write_text(
        "import numpy as np\n\n\nclass Means:\n    def predict(self, batch):\n"
        f"        return batch.mean(axis=(1, 2)) * {float(SCALE)} - 1\n"
    )


SIZE = f"[input]\nheight = {SIDE}\nwidth = {SIDE}\n"
ROW_MODELS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "onnx": (write_onnx, 'framework = "onnx"\n', ""),
    "openvino": (write_openvino, 'framework = "openvino"\n', ""),
    "litert": (write_litert, 'framework = "litert"\n', ""),
    "torch": (write_torch, 'framework = "torch"\n', SIZE),
    "tensorflow": (write_tensorflow, 'framework = "tensorflow"\n', ""),
    "python": (write_python, 'framework = "python"\nclass = "means:Means"\n', SIZE),
}


def write_row_model(folder: Path, kind: str, head: str, tables: str = "") -> None:
    """A model of a framework, with `model.toml`: `head` before all tables, and more tables."""
    write, framework, size = ROW_MODELS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    write(folder)
    (folder / "model.toml").write_text(f"{framework}{head}\n{size}{tables}")
