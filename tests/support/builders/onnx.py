"""The colours model in ONNX: pixels in every order, of floats and of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.support.colours import SIDE, write_labels


def write(
    folder: Path,
    shape: Sequence[int | str],
    *,
    channels_last: bool = False,
    dtype: int = TensorProto.FLOAT,
    end: str = "Softmax",
    weight: float = 1 / 16,
    toml: str = "",
) -> None:
    """Write `model.onnx`, labels, and `model.toml` where `toml` has more to say.

    Its scores are the operator `end` of each channel's mean times `weight`.
    """
    axes = np.array([1, 2] if channels_last else [2, 3])
    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
        helper.make_node(end, ["logits"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", dtype, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 3])],
        [
            numpy_helper.from_array(axes, "axes"),
            numpy_helper.from_array(np.eye(3, dtype=np.float32) * np.float32(weight), "weights"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    write_labels(folder)
    if toml:
        (folder / "model.toml").write_text(f'framework = "onnx"\n{toml}')


def channels_first(folder: Path) -> None:
    write(folder, ["N", 3, SIDE, SIDE])


def channels_last(folder: Path) -> None:
    write(folder, ["N", SIDE, SIDE, 3], channels_last=True)


def uint8(folder: Path) -> None:
    write(folder, ["N", SIDE, SIDE, 3], channels_last=True, dtype=TensorProto.UINT8)


def fixed_batch(folder: Path) -> None:
    write(folder, [4, 3, SIDE, SIDE])


def open_size(folder: Path) -> None:
    """Every axis is open; `model.toml` says the size, the layout, and that softmax is missing."""
    write(
        folder,
        ["N", "C", "H", "W"],
        end="Identity",
        toml=f"""
[input]
height = {SIDE}
width = {SIDE}
layout = "NCHW"
[output]
activation = "softmax"
""",
    )


BUILDERS: dict[str, Callable[[Path], None]] = {
    "onnx": channels_first,
    "onnx-channels-last": channels_last,
    "onnx-uint8": uint8,
    "onnx-fixed-batch": fixed_batch,
    "onnx-open-size": open_size,
}
