"""Formats that are not read: each gets a sentence that says what it is, and what to do instead."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.files import find_model
from fingerpost.worker.models.manifest import Framework, read_manifest

RAW_PICKLE = pickle.dumps({"conv.weight": [1.0]}, protocol=2)


def archive(path: Path, *entries: str) -> Path:
    with zipfile.ZipFile(path, "w") as writer:
        for entry in entries:
            writer.writestr(f"{path.stem}/{entry}", b"-")
    return path


def why(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        find_model(path, served=False)
    return caught.value.message


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("model.safetensors", "a safetensors file: weights without their network", "optimum-cli"),
        ("model.ckpt", "a checkpoint of TensorFlow", "model.export('saved_model')"),
        ("model.ckpt.index", "a checkpoint of TensorFlow", "model.export('saved_model')"),
        ("model.ckpt.meta", "a checkpoint of TensorFlow", "tf2onnx.convert --checkpoint"),
        ("variables.data-00000-of-00001", "a checkpoint of TensorFlow", "model.export"),
        ("checkpoint", "a checkpoint of TensorFlow", "model.export"),
        ("model.lite", "a TensorFlow Lite model under another name", "name it model.tflite"),
        ("model.mlmodel", "a Core ML model", "ONNX"),
        ("model.engine", "a TensorRT engine, compiled for one kind of GPU", "ONNX file"),
        ("MODEL.PLAN", "a TensorRT engine", "ONNX file"),
        ("model.joblib", "a pickle, as of scikit-learn", 'framework = "python"'),
        ("pytorch_model.bin", "a pickle of PyTorch", "torch.export.save"),
        ("pytorch_model-00001-of-00002.bin", "a pickle of PyTorch", "torch.export.save"),
        ("model.xml", "an XML file that is not an OpenVINO model", "save_model(model"),
        ("model.caffemodel", "the weights of a Caffe model", ".prototxt"),
        ("model.pdmodel", "not built in", 'framework = "python"'),
        ("model.mar", "an archive", "unpack"),
        ("model.tar.gz", "an archive", "unpack"),
    ],
)
def test_files_of_other_formats(tmp_path: Path, name: str, what: str, remedy: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / name).write_bytes(b"-")
    message = why(folder / name)
    assert message.startswith(f"{folder / name} is {what}" if what[0] == "a" else str(folder))
    assert what in message
    assert "which is not read here" in message
    assert remedy.casefold() in message.casefold()
    # Likewise where the folder is named, and where a manifest names the file.
    assert f"{name} is " in why(folder)
    assert what in why(folder)
    (folder / "model.toml").write_text(f'framework = "onnx"\nfile = "{name}"')
    assert what in why(folder)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".pkl"])
def test_pickles_of_pytorch_by_their_content(tmp_path: Path, suffix: str) -> None:
    path = archive(tmp_path / f"weights{suffix}", "data.pkl", "data/0", "version")
    assert "a pickle of PyTorch (a state_dict, a checkpoint or a module)" in why(path)
    assert "torch.export.save(torch.export.export(model.eval()" in why(path)
    path.write_bytes(RAW_PICKLE)  # as PyTorch before 1.6 wrote them
    kind = "a pickle, as of scikit-learn" if suffix == ".pkl" else "a pickle of PyTorch"
    assert kind in why(path)
    (tmp_path / "model.toml").write_text(f'framework = "torch"\nfile = "{path.name}"')
    assert kind in why(tmp_path)


@pytest.mark.parametrize("entry", ["constants.pkl", "models/model.json"])
def test_a_pth_may_be_a_model(tmp_path: Path, entry: str) -> None:
    path = archive(tmp_path / "model.pth", "data.pkl", entry)
    for given in (path, tmp_path):
        found = find_model(given, served=False)
        assert (found.path, found.manifest.framework) == (path, Framework.TORCH)
    # Beside what is a model in any case, it is taken for what that was made of.
    (tmp_path / "model.onnx").write_bytes(b"-")
    assert find_model(tmp_path, served=False).path.name == "model.onnx"


def test_weights_beside_a_model_do_no_harm(tmp_path: Path) -> None:
    for name in ("model.onnx", "weights.pth", "model.safetensors", "checkpoint"):
        (tmp_path / name).write_bytes(RAW_PICKLE)
    assert find_model(tmp_path, served=False).path.name == "model.onnx"


def test_folders_of_other_formats(tmp_path: Path) -> None:
    core_ml = tmp_path / "model.mlpackage"
    core_ml.mkdir()
    assert "model.mlpackage is a Core ML model" in why(core_ml)
    openvino = tmp_path / "openvino"
    openvino.mkdir()
    for name in ("model.bin", "model.xml"):
        (openvino / name).write_bytes(b"-")
    assert "model.bin is the weights of an OpenVINO model" in why(openvino)
    tfjs = tmp_path / "tfjs"
    tfjs.mkdir()
    for name in ("group1-shard1of2.bin", "model.json"):
        (tfjs / name).write_bytes(b"-")
    assert "tensorflowjs_converter" in why(tfjs)


def test_the_file_of_a_saved_model_is_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "digits" / "3"
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"-")
    found = find_model(folder / "saved_model.pb")
    assert (found.name, found.version, found.path) == ("digits", "3", folder)
    assert found == find_model(folder)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("keras", Framework.TENSORFLOW),
        ("TensorFlow", Framework.TENSORFLOW),
        ("tensorflow2", Framework.TENSORFLOW),
        ("tf", Framework.TENSORFLOW),
        ("tf.keras", Framework.TENSORFLOW),
        ("tensorflow_savedmodel", Framework.TENSORFLOW),
        ("pytorch", Framework.TORCH),
        ("PyTorch", Framework.TORCH),
        ("torchscript", Framework.TORCH),
        ("onnxruntime", Framework.ONNX),
        ("onnxruntime_onnx", Framework.ONNX),
        ("ONNX", Framework.ONNX),
        ("OpenVINO", Framework.OPENVINO),
        ("tflite", Framework.LITERT),
        ("TensorFlow Lite", Framework.LITERT),
        ("ai-edge-litert", Framework.LITERT),
    ],
)
def test_other_names_of_a_framework(tmp_path: Path, written: str, meant: Framework) -> None:
    path = tmp_path / "model.toml"
    path.write_text(f'framework = "{written}"')
    assert read_manifest(path).framework is meant


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("tfjs", "python; tfjs is not read here. Convert it: tensorflowjs_converter "),
        ("TensorRT", "TensorRT is not read here. Serve the ONNX file that it was built from"),
        ("scikit-learn", "scikit-learn is not read here. Write a Python class"),
        ("jax", 'framework = "python"'),
        ("tensorlfow", "expected tensorflow, onnx, openvino, litert, torch, caffe or python"),
    ],
)
def test_frameworks_that_are_not_read(tmp_path: Path, written: str, hint: str) -> None:
    path = tmp_path / "model.toml"
    path.write_text(f'framework = "{written}"')
    with pytest.raises(ConfigurationError) as caught:
        read_manifest(path)
    assert f"Invalid enum value '{written}'" in caught.value.message
    assert hint in caught.value.message
