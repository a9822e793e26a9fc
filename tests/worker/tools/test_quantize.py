"""INT8 versions: right as before, whole or not at all, and refused where they are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from fingerpost.errors import AccuracyLost, ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import Framework
from fingerpost.worker.tools.int8 import Calibration
from fingerpost.worker.tools.quantize import QuantizeConfig, quantize
from tests.support.builders import onnx as builders
from tests.support.colours import LABELS, RGB, SIDE, Models, encoded

CPU = LoadConfig(device="cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of each colour in a folder of its name, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("images")
    for label in LABELS:
        (folder / label).mkdir()
        for number in range(4):
            path = folder / label / f"{number}.png"
            path.write_bytes(encoded(label, (30 + number, 20)))
    (folder / "red" / "broken.png").write_bytes(b"no image")
    return folder


def convolutions(folder: Path, shape: Sequence[int | str] = ("N", 3, SIDE, SIDE)) -> None:
    """A network as they are quantized: convolutions (one depthwise), a residual, a dense layer."""
    random = np.random.default_rng(1)

    def weights(name: str, *size: int) -> Any:
        values = random.normal(0, 1 / np.sqrt(np.prod(size[1:])), size)
        return numpy_helper.from_array(values.astype(np.float32), name)

    # The colours go through the network unchanged beside random features.
    first = random.normal(0, 0.01, (8, 3, 3, 3)).astype(np.float32)
    first[:3] *= 0
    for channel in range(3):
        first[channel, channel, 1, 1] = 1 / 32
    dense = random.normal(0, 0.01, (8, 3)).astype(np.float32)
    dense[:3] += np.eye(3, dtype=np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["a", "zero", "six"], ["b"]),
        helper.make_node("Conv", ["b", "depthwise"], ["c"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Add", ["b", "c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "dense"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"]),
    ]
    depthwise = numpy_helper.from_array(
        random.normal(0, 0.02, (8, 1, 3, 3)).astype(np.float32), "depthwise"
    )
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [shape[0], 3])],
        [
            numpy_helper.from_array(first, "first"),
            depthwise,
            numpy_helper.from_array(dense, "dense"),
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array(6, np.float32), "six"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    (folder / "labels.txt").write_text("\n".join(LABELS))


def written(folder: Path, build: Callable[[Path], None]) -> Path:
    folder.mkdir(parents=True)
    build(folder)
    return folder


@pytest.mark.parametrize("method", list(Calibration), ids=lambda method: method.value)
def test_a_network_answers_as_before(tmp_path: Path, images: Path, method: Calibration) -> None:
    original = written(tmp_path / "colours" / "3", convolutions)
    config = QuantizeConfig(method=method, max_loss=0.0)
    found = quantize(find_model(original.parent), images, config)
    assert found.folder == tmp_path / "colours" / "4"  # the next version
    # Of 13 files, the broken one among them, 6 at most are measured, and the others compared.
    assert found.calibration_images in (5, 6)
    assert found.images == found.labelled == 12 - found.calibration_images
    assert (found.agreed, found.right) == (found.images, found.images)
    assert (found.accuracy, found.accuracy_of_original, found.loss) == (1.0, 1.0, 0.0)
    made = find_model(tmp_path / "colours")
    assert (made.version, made.labels, made.inferred) == ("4", LABELS, False)
    assert made.manifest.framework is Framework.ONNX
    quantized, first = load_backend(made, CPU), load_backend(find_model(original), CPU)
    assert quantized.input == first.input
    pixels = [np.full((SIDE, SIDE, 3), RGB[label], np.uint8) for label in (*LABELS, "black")]
    assert np.abs(quantized.predict(pixels) - first.predict(pixels)).max() < 0.02
    model = onnx.load(made.path)
    types = {each.data_type for each in model.graph.initializer}
    assert TensorProto.INT8 in types
    for each in model.graph.initializer:  # 7 bits, for processors without VNNI
        if each.data_type == TensorProto.INT8:
            assert np.abs(numpy_helper.to_array(each).astype(int)).max() <= 64
    assert not {"first", "depthwise", "dense"} & {each.name for each in model.graph.initializer}
    report = json.loads((made.folder / "report.json").read_text())
    assert (report["accuracy"], report["agreement"], report["images"]) == (1, 1, found.images)
    assert (report["quantized_from"], report["calibration"]) == ("colours@3", method.value)
    assert sorted(each.name for each in (tmp_path / "colours").iterdir()) == ["3", "4"]


@pytest.mark.parametrize("kind", ["onnx-channels-last", "onnx-uint8", "onnx-fixed-batch",
                                  "onnx-open-size"])  # fmt: skip
def test_other_inputs(tmp_path: Path, images: Path, kind: str) -> None:
    files = find_model(written(tmp_path / kind, builders.BUILDERS[kind]))
    found = quantize(files, images, QuantizeConfig(), out=tmp_path / "new" / "1")
    assert found.accuracy == 1.0
    assert find_model(tmp_path / "new").manifest.output == files.manifest.output


def test_a_saved_model_becomes_onnx_first(models: Models, tmp_path: Path, images: Path) -> None:
    files = find_model(models.saved_model)
    found = quantize(files, images, QuantizeConfig(), out=tmp_path / "models" / "colours" / "8")
    assert (found.accuracy, found.folder) == (1.0, tmp_path / "models" / "colours" / "8")
    assert [each.name for each in found.folder.parent.iterdir()] == ["8"]


def nearly_alike(folder: Path) -> None:
    """It tells means of 100.0 and 100.4 apart, which are one number of 8 bits."""
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["difference"]),
        helper.make_node("Add", ["difference", "bias"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nearly",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", SIDE, SIDE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2])],
        [
            numpy_helper.from_array(np.array([1, 2]), "axes"),
            numpy_helper.from_array(np.array([[-1, 1]] * 3, np.float32) / 3, "weights"),
            numpy_helper.from_array(np.array([100.2, -100.2], np.float32), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    (folder / "labels.txt").write_text("dark\nlight\n")


@pytest.fixture(scope="module")
def grays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five dark and five light images, and black and white ones beside the folders."""
    folder = tmp_path_factory.mktemp("grays")
    light = np.full((SIDE, SIDE, 3), 100, np.uint8)
    light.reshape(-1, 3)[: int(0.4 * SIDE * SIDE)] = 101
    pictures = {"dark": np.full_like(light, 100), "light": light}
    for label, pixels in pictures.items():
        (folder / label).mkdir()
        for number in range(5):
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    for name, value in {"black": 0, "white": 255}.items():
        for number in range(5):
            path = folder / f"{name}-{number}.png"
            Image.fromarray(np.full_like(light, value)).save(path)
    return folder


def test_a_loss_over_the_limit_leaves_nothing_behind(tmp_path: Path, grays: Path) -> None:
    original = written(tmp_path / "models" / "gray" / "1", nearly_alike)
    before = sorted(tmp_path.rglob("*"))
    config = QuantizeConfig(max_loss=0.05)
    with pytest.raises(AccuracyLost) as lost:
        quantize(find_model(original), grays, config)
    message = str(lost.value)
    assert "the accuracy on 5 images fell from 100.00% to" in message
    assert "more than the limit of 5.00%" in message
    assert "--max-loss" in message
    assert lost.value.code == "accuracy_lost"
    with pytest.raises(AccuracyLost):
        quantize(find_model(original), grays, config, out=tmp_path / "elsewhere" / "2")
    assert sorted(tmp_path.rglob("*")) == before
    # Who accepts it gets it, and reads what it costs.
    found = quantize(find_model(original), grays, QuantizeConfig(max_loss=1))
    report = json.loads((found.folder / "report.json").read_text())
    assert report["accuracy_of_original"] == 1
    assert report["loss"] == pytest.approx(1 - report["accuracy"]) == pytest.approx(found.loss)
    assert report["loss"] > 0.05


def test_images_without_classes_are_compared_by_their_best_label(
    tmp_path: Path, images: Path, grays: Path
) -> None:
    good = written(tmp_path / "colours", convolutions)
    (good / "labels.txt").write_text("x\ny\nz\n")  # the folders are named for other labels
    found = quantize(find_model(good), images, QuantizeConfig(), out=tmp_path / "2")
    assert (found.labelled, found.accuracy, found.agreement) == (0, None, 1.0)
    bad = written(tmp_path / "gray", nearly_alike)
    (bad / "labels.txt").unlink()
    with pytest.raises(AccuracyLost, match=r"the best label of \d\d\.\d\d% of 10 images is the s"):
        quantize(find_model(bad), grays, QuantizeConfig(), out=tmp_path / "3")


def test_clear_errors(models: Models, tmp_path: Path, images: Path) -> None:
    def refused(path: Path, message: str, folder: Path = images, **options: Any) -> None:
        with pytest.raises(ConfigurationError, match=message):
            quantize(find_model(path), folder, QuantizeConfig(), **options)

    model = written(tmp_path / "colours", convolutions)
    refused(model, "not a version's folder, such as models/colours/1, .*: name .* with --to")
    new = {"out": tmp_path / "new"}
    refused(model, "exists already", out=tmp_path)
    refused(models.frozen_jpeg, "decodes images itself", **new)
    (tmp_path / "empty").mkdir()
    refused(model, "no images in", tmp_path / "empty", **new)
    refused(model, "none is not a folder", tmp_path / "none", **new)
    Path(tmp_path / "empty" / "a.png").write_bytes(b"x")
    refused(model, "none of the images can be decoded", tmp_path / "empty", **new)
    (model / "model.toml").write_text('framework = "onnx"\ntask = "embedding"\n')
    refused(model, "task is 'embedding', but the best label", **new)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["colours", "empty"]


@pytest.mark.parametrize(
    "wrong",
    [{"calibration_images": 0}, {"compared_images": 0}, {"max_loss": -0.1}, {"max_loss": 1.1}],
    ids=str,
)
def test_settings(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"{name} is"):
        QuantizeConfig(**wrong)
