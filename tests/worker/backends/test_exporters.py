"""ONNX files as the exporters of MXNet and Matlab write them, as docs/models.md says to serve them.

MXNet 1.9 (`python/mxnet/onnx/mx2onnx`): graph `mxnet_converted_model`, inputs and outputs by the
names of MXNet's nodes, the shapes that were passed to `export_model`, or with
`dynamic_input_shapes` some axes without a length; the operators of a Gluon classifier end with its
logits.

Matlab (`exportONNXNetwork`): the image is normalized in the file, by an average image whose name
is that of the input with a suffix (onnx/tutorials#90); the first axis is called BatchSize
(dusty-nv/jetson-inference#1378); old versions list the weights among the inputs, as ONNX before its
IR version 4 asks for.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fingerpost.worker.backends.base import Backend, LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import MANIFEST
from tests.support.colours import SIDE, write_labels

RNG = np.random.default_rng(6)
IMAGES = [
    (RNG.random((SIDE, SIDE, 3)) * RNG.integers(40, 255, 3)).astype(np.uint8) for _ in range(5)
]
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
WEIGHTS = RNG.normal(size=(3, 3)).astype(np.float32)
FLOAT = TensorProto.FLOAT


def softmax(rows: np.ndarray) -> np.ndarray:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def means() -> np.ndarray:
    return np.stack([image.astype(np.float64).mean((0, 1)) for image in IMAGES])


def mxnet(path: Path, *shape: int | None) -> np.ndarray:
    """Write a Gluon classifier; its scores for the images."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["data"], ["net0_pool0_fwd"], "net0_pool0_fwd"),
        helper.make_node("Flatten", ["net0_pool0_fwd"], ["net0_flatten0"], axis=1),
        helper.make_node(
            "Gemm",
            ["net0_flatten0", "net0_dense0_weight", "net0_dense0_bias"],
            ["net0_dense0_fwd"],
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "mxnet_converted_model",
        [helper.make_tensor_value_info("data", FLOAT, shape)],
        [helper.make_tensor_value_info("net0_dense0_fwd", FLOAT, [shape[0], 3])],
        [
            numpy_helper.from_array(WEIGHTS, "net0_dense0_weight"),
            numpy_helper.from_array(np.ones(3, np.float32), "net0_dense0_bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.save(model, path)
    return softmax(((means() - MEAN) / STD) @ WEIGHTS.T.astype(np.float64) + 1)


def matlab(path: Path) -> np.ndarray:
    """Write a classifier whose input layer subtracts an average image; its scores."""
    average = np.full((1, 3, SIDE, SIDE), 120, np.float32)
    weights = (WEIGHTS / 64)[:, :, None, None]
    inputs: dict[str, Any] = {
        "data": ["BatchSize", 3, SIDE, SIDE],
        "data_AvgImg": average.shape,
        "fc_1_W": weights.shape,
        "fc_1_B": [3],
    }
    nodes = [
        helper.make_node("Sub", ["data", "data_AvgImg"], ["data_Sub"], "data_Sub"),
        helper.make_node("GlobalAveragePool", ["data_Sub"], ["gap"], "gap"),
        helper.make_node("Conv", ["gap", "fc_1_W", "fc_1_B"], ["fc_1"], "fc_1"),
        helper.make_node("Flatten", ["fc_1"], ["softmax_Flatten"], "softmax_Flatten"),
        helper.make_node("Softmax", ["softmax_Flatten"], ["softmax"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "Network",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("softmax", FLOAT, ["BatchSize", 3])],
        [
            numpy_helper.from_array(average, "data_AvgImg"),
            numpy_helper.from_array(weights, "fc_1_W"),
            numpy_helper.from_array(np.zeros(3, np.float32), "fc_1_B"),
        ],
    )
    opsets = [helper.make_opsetid("", 8)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=3)
    model.producer_name = "MATLAB Deep Learning Toolbox Converter for ONNX Model Format"
    onnx.save(model, path)
    return softmax((means() - 120) @ (WEIGHTS / 64).T.astype(np.float64))


def documented(heading: str, framework: str) -> str:
    """The first `model.toml` below a heading of docs/models.md."""
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text("utf-8")
    section = text.partition(f"### {heading}\n")[2]
    block = re.search(r"(?m)^    framework = .*\n(?:(?:    .*)?\n)*", section)
    assert block is not None
    toml = textwrap.dedent(block[0]).replace('"onnx"', f'"{framework}"', 1)
    return re.sub(r'file = ".*"', 'file = "net.onnx"', re.sub(r"= 224", f"= {SIDE}", toml))


def serve(folder: Path, toml: str) -> Backend:
    (folder / MANIFEST).write_text(toml)
    write_labels(folder)
    return load_backend(find_model(folder, name="m"), LoadConfig(device="cpu"))


@pytest.mark.parametrize("framework", ["onnx", "openvino"])
@pytest.mark.parametrize("batch", [1, None])
def test_mxnet(tmp_path: Path, framework: str, batch: int | None) -> None:
    expected = mxnet(tmp_path / "net.onnx", batch, 3, SIDE, SIDE)
    backend = serve(tmp_path, documented("MXNet", framework))
    assert backend.input.batch == batch
    assert backend.predict(IMAGES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("framework", ["onnx", "openvino"])
def test_mxnet_with_all_axes_open(tmp_path: Path, framework: str) -> None:
    """With `dynamic=True` alone; then the size is written."""
    expected = mxnet(tmp_path / "net.onnx", None, None, None, None)
    toml = documented("MXNet", framework)
    size = f'[input]\nheight = {SIDE}\nwidth = {SIDE}\nlayout = "NCHW"\n'
    backend = serve(tmp_path, f"{toml}\n{size}")
    assert backend.predict(IMAGES) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("framework", ["onnx", "openvino"])
def test_matlab(tmp_path: Path, framework: str) -> None:
    expected = matlab(tmp_path / "net.onnx")
    backend = serve(tmp_path, documented("Matlab", framework))
    assert backend.input.batch is None
    assert backend.predict(IMAGES) == pytest.approx(expected, abs=1e-5)
