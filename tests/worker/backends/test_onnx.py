"""What is ONNX's own: layouts that cannot be told, ends by name, and files that are damaged."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.onnx import OnnxBackend, load
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import Layout
from tests.support.builders.onnx import write
from tests.support.colours import SIDE


def load_from(folder: Path, **options: Any) -> OnnxBackend:
    return load(find_model(folder, name="m"), LoadConfig(**options))


def test_the_layout_is_told_from_the_channels(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE])
    assert load_from(tmp_path).input.layout is Layout.NCHW
    write(tmp_path, ["N", SIDE, SIDE, 3], channels_last=True)
    assert load_from(tmp_path).input.layout is Layout.NHWC
    write(tmp_path, ["N", 3, 3, 3])
    with pytest.raises(ConfigurationError, match=r'set input.layout = "NCHW" or "NHWC"'):
        load_from(tmp_path)
    write(tmp_path, ["N", 3, 3, 3], toml='input.layout = "NCHW"')
    assert load_from(tmp_path).input.layout is Layout.NCHW


def test_an_input_of_unknown_rank(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE])
    model = onnx.load(tmp_path / "model.onnx")
    for each in (*model.graph.input, *model.graph.output):
        each.type.tensor_type.ClearField("shape")
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ConfigurationError, match=r"write height, width, channels .* and layout"):
        load_from(tmp_path)
    said = f'framework = "onnx"\n[input]\nheight = {SIDE}\nwidth = {SIDE}\nlayout = "NCHW"\n'
    (tmp_path / "model.toml").write_text(said)
    scores = load_from(tmp_path).predict([np.full((SIDE, SIDE, 3), (9, 9, 250), np.uint8)] * 2)
    assert (scores[:, 2] > 0.99).tolist() == [True, True]


def test_a_model_of_bytes_gets_bytes(tmp_path: Path) -> None:
    write(tmp_path, ["N", SIDE, SIDE, 3], channels_last=True, dtype=TensorProto.UINT8)
    assert load_from(tmp_path).input.dtype == "uint8"


def test_half_precision(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE], dtype=TensorProto.FLOAT16)
    backend = load_from(tmp_path, threads=1)
    assert backend.input.dtype == "float16"
    scores = backend.predict([np.full((SIDE, SIDE, 3), (9, 9, 250), np.uint8)])
    assert scores.dtype == np.float32
    assert scores[0, 2] > 0.99


@pytest.mark.parametrize("threads", [2, 3])
def test_a_batch_in_parts_answers_as_a_whole(tmp_path: Path, threads: int) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE])
    whole, divided = load_from(tmp_path, threads=1), load_from(tmp_path, threads=threads)
    assert (whole.input.concurrent_batches, divided.input.concurrent_batches) == (1, 2)
    rng = np.random.default_rng(1)
    images = list(rng.integers(0, 256, (26, SIDE, SIDE, 3), np.uint8))
    expected = whole.predict(images)
    assert len(np.unique(expected, axis=0)) == len(images)
    for count in range(1, len(images) + 1):
        assert divided.predict(images[:count]) == pytest.approx(expected[:count], abs=1e-6)
    assert sum(each.name.startswith("onnx") for each in threading.enumerate()) == threads
    with ThreadPoolExecutor(divided.input.concurrent_batches) as callers:  # at once
        for count in (1, 2, 5, 13):
            ends = (images[:count], images[-count:])
            for end, scores in zip(ends, callers.map(divided.predict, ends), strict=True):
                assert scores == pytest.approx(whole.predict(end), abs=1e-6)
    divided.close()
    assert not any(each.name.startswith("onnx") for each in threading.enumerate())


def test_clear_errors(tmp_path: Path) -> None:
    table = {
        "input.name = 'pixels'": r"has no input 'pixels' \(input.name\); it has image",
        "output.name = 'softmax'": r"has no output 'softmax' \(output.name\); it has scores",
        "input.height = 17": r"input.height is 17 .*the model takes 16",
    }
    for toml, message in table.items():
        write(tmp_path, ["N", 3, SIDE, SIDE], toml=toml)
        with pytest.raises(ConfigurationError, match=message):
            load_from(tmp_path)
    (tmp_path / "model.toml").unlink()
    write(tmp_path, ["N", SIDE, SIDE, 3], channels_last=True, dtype=TensorProto.INT64)
    with pytest.raises(
        ConfigurationError, match=r"input 'image' is int64 \[\?, 16, 16, 3\]; expec"
    ):
        load_from(tmp_path)
    write(tmp_path, ["N", 3, "H", "W"])
    with pytest.raises(ConfigurationError, match="which image size it takes"):
        load_from(tmp_path)
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigurationError, match=r"model.onnx cannot be loaded: .*\w"):
        load_from(tmp_path)


def several(folder: Path, *, inputs: int = 1, outputs: int = 1, toml: str = "") -> None:
    """A model of several ends; its scores are the first pixel."""
    names = [f"image{i}" for i in range(inputs)]
    shape = ["N", 3, 1, 1]
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["image0"], [f"out{i}"], axis=1) for i in range(outputs)],
        "several",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [
            helper.make_tensor_value_info(f"out{i}", TensorProto.FLOAT, ["N", 3])
            for i in range(outputs)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    (folder / "model.toml").write_text(f'framework = "onnx"\ninput.layout = "NCHW"\n{toml}')


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    several(tmp_path, inputs=2)
    with pytest.raises(ConfigurationError, match=r"2 inputs \(image0, image1\): only a model with"):
        load_from(tmp_path)
    several(tmp_path, outputs=2)
    with pytest.raises(ConfigurationError, match=r"2 outputs \(out0, out1\): name one with output"):
        load_from(tmp_path)
    several(tmp_path, outputs=2, toml='output.name = "out1"')
    assert load_from(tmp_path).predict([np.full((1, 1, 3), 7, np.uint8)]).tolist() == [[7, 7, 7]]


def test_a_gpu_that_this_build_cannot_use(tmp_path: Path) -> None:
    write(tmp_path, ["N", 3, SIDE, SIDE])
    assert load_from(tmp_path, device="cpu").device == "cpu"
    with pytest.raises(ConfigurationError, match=r"cuda:77.* use --device cpu"):
        load_from(tmp_path, device="cuda:77")
    assert load_from(tmp_path).framework == f"onnxruntime {onnxruntime.__version__}"
