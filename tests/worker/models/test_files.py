"""Finding models: every layout that is accepted, and one clear line for each that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.files import (
    ManifestOverrides,
    find_model,
    find_versions,
)
from fingerpost.worker.models.labels import read_labels
from fingerpost.worker.models.manifest import ChannelOrder, Framework, Layout, Preprocessing


def saved_model(folder: Path, labels: str = "a\nb\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"-")
    (folder / "labels.txt").write_text(labels)
    return folder


def folder_of(root: Path, *names: str, manifest: str = "") -> Path:
    root.mkdir(parents=True)
    for name in names:
        (root / name).write_bytes(b"-")
    if manifest:
        (root / "model.toml").write_text(manifest)
    return root


def test_the_highest_version_is_taken_by_number(tmp_path: Path) -> None:
    for version in ("2", "9", "10"):
        saved_model(tmp_path / "flowers" / version)
    folder_of(tmp_path / "flowers" / ".training-12")
    found = find_model(tmp_path / "flowers")
    assert (found.name, found.version, found.labels) == ("flowers", "10", ("a", "b"))
    assert found.path == found.folder == tmp_path / "flowers" / "10"
    assert (found.manifest.framework, found.inferred) == (Framework.TENSORFLOW, True)
    assert find_model(tmp_path / "flowers", version="2").path.name == "2"
    assert find_model(tmp_path / "flowers" / "9").version == "9"
    assert find_model(tmp_path / "flowers" / "9").name == "flowers"
    assert sorted(find_versions(tmp_path / "flowers")) == [2, 9, 10]
    assert find_versions(tmp_path / "nowhere") == {}


def test_a_plain_folder_is_version_1(tmp_path: Path) -> None:
    found = find_model(saved_model(tmp_path / "digits"))
    assert (found.name, found.version) == ("digits", "1")


def test_single_files_and_folders_that_hold_one(tmp_path: Path) -> None:
    graph = folder_of(tmp_path / "retrained", "output_graph.pb") / "output_graph.pb"
    (tmp_path / "retrained" / "output_labels.txt").write_text("daisy\nroses\n")
    found = find_model(tmp_path / "retrained")
    assert (found.name, found.path) == ("retrained", graph)
    assert found.labels == ("daisy", "roses")
    keras = tmp_path / "cats.keras"
    keras.write_bytes(b"-")
    assert find_model(keras).name == "cats"
    assert find_model(keras).labels == ()
    assert find_model(graph, name="flowers", version="4").version == "4"


def test_a_name_that_nobody_asks_for_may_be_any(tmp_path: Path) -> None:
    graph = folder_of(tmp_path / "My Models", "output_graph.pb") / "output_graph.pb"
    with pytest.raises(ConfigurationError, match="'output_graph' is not a valid.*--name"):
        find_model(graph)
    assert find_model(graph, served=False).name == "output_graph"
    assert find_model(graph.parent, served=False).name == "My Models"
    folder_of(graph.parent / "3", "m.onnx")
    found = find_model(graph.parent, served=False)
    assert (found.name, found.version) == ("My Models", "3")
    with pytest.raises(ConfigurationError, match="'A B' is not a valid"):
        find_model(graph, name="A B", served=False)


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("m.keras", Framework.TENSORFLOW),
        ("m.pb", Framework.TENSORFLOW),
        ("m.onnx", Framework.ONNX),
        ("m.pt2", Framework.TORCH),
        ("m.pt", Framework.TORCH),
        ("m.torchscript", Framework.TORCH),
        ("m.prototxt", Framework.CAFFE),
    ],
)
def test_the_framework_is_told_by_the_file(tmp_path: Path, name: str, framework: Framework) -> None:
    folder = folder_of(tmp_path / "model", name, "m.caffemodel", "report.json", "m.onnx.data")
    for path in (folder, folder / name):
        found = find_model(path)
        assert (found.manifest.framework, found.path) == (framework, folder / name)
        assert found.folder == folder
        weights = folder / "m.caffemodel" if framework is Framework.CAFFE else None
        assert found.weights == weights


def test_what_is_customary_where_no_manifest_says_otherwise(tmp_path: Path) -> None:
    graph = find_model(folder_of(tmp_path / "graph", "m.pb"))
    assert graph.manifest.preprocessing == Preprocessing(std=255.0)
    caffe = find_model(folder_of(tmp_path / "caffe", "m.prototxt", "m.caffemodel"))
    assert caffe.manifest.preprocessing == Preprocessing(order=ChannelOrder.BGR)
    said = find_model(folder_of(tmp_path / "said", "m.pb", manifest='framework = "tensorflow"'))
    assert said.manifest.preprocessing == Preprocessing()
    assert not said.inferred


def test_a_manifest_chooses_among_several(tmp_path: Path) -> None:
    names = ("a.onnx", "b.onnx", "b.pt2", "x.txt")
    text = 'framework = "onnx"\nfile = "b.onnx"\nlabels = "x.txt"\n[input]\nheight = 8'
    folder = folder_of(tmp_path / "several", *names, manifest=text)
    found = find_model(folder)
    assert (found.path.name, found.labels, found.inferred) == ("b.onnx", ("-",), False)
    assert found.manifest.input.height == 8
    assert find_model(folder / "b.onnx").manifest == found.manifest
    other = find_model(folder / "a.onnx")  # of which the manifest does not speak
    assert (other.path.name, other.inferred, other.manifest.input.height) == ("a.onnx", True, None)
    folder_of(folder / "1", "ignored.onnx")
    assert find_model(folder).folder == folder


def test_a_python_class_is_its_folder(tmp_path: Path) -> None:
    text = 'framework = "python"\nclass = "mine:Model"'
    folder = folder_of(tmp_path / "mine", "mine.py", "weights.onnx", manifest=text)
    found = find_model(folder)
    assert (found.path, found.manifest.python_class) == (folder, "mine:Model")


def test_the_command_line_is_over_the_manifest(tmp_path: Path) -> None:
    text = 'framework = "onnx"\n[input]\nname = "x"\nheight = 8\n[preprocessing]\nmean = 5'
    folder = folder_of(tmp_path / "m", "m.onnx", manifest=text)
    overrides = ManifestOverrides(
        output_layer="scores", input_std=255.0, image_size=32, layout="NCHW"
    )
    manifest = find_model(folder, overrides=overrides).manifest
    assert (manifest.input.name, manifest.input.height, manifest.input.width) == ("x", 32, 32)
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == (5.0, 255.0)
    assert manifest.output.name == "scores"
    assert manifest.input.layout is Layout.NCHW
    for bad, message in (
        (ManifestOverrides(input_std=0.0), "divide by zero.*--input-std"),
        (ManifestOverrides(image_size=0), "input.height is 0.*--image-size"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            find_model(folder, overrides=bad)


def test_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "mine.py").write_text("x")
    saved_model(tmp_path / "Bad_Name")
    saved_model(tmp_path / "v" / "1")
    torch = 'framework = "torch"'
    table = {
        tmp_path / "nowhere": "no model at .*nowhere",
        folder_of(tmp_path / "empty"): "expected saved_model.pb, .*found none of these",
        folder_of(tmp_path / "two", "a.onnx", "b.pt"): "found a.onnx, b.pt$",
        tmp_path / "notes.txt": r"notes.txt is not a model: expected one of \.keras",
        tmp_path / "mine.py": r"mine.py is not a model: .*a Python class needs a model.toml",
        tmp_path / "Bad_Name": "'Bad_Name' is not a valid service name.*--name",
        folder_of(
            tmp_path / "lost", manifest=torch + '\nfile = "x.pt"'
        ): "'x.pt', .* does not exist",
        folder_of(tmp_path / "none", "a.onnx", manifest=torch): "found none of these",
        folder_of(tmp_path / "other", "a.onnx", manifest=torch + '\nfile = "a.onnx"'): (
            "a.onnx is a model for framework 'onnx' or 'openvino', but its model.toml names 'torch'"
        ),
        folder_of(tmp_path / "light", "a.prototxt"): "needs one .caffemodel .*found none",
        folder_of(tmp_path / "heavy", "a.prototxt", "a.caffemodel", "b.caffemodel"): (
            "found a.caffemodel, b.caffemodel"
        ),
        folder_of(tmp_path / "unlabelled", "a.pt", manifest=torch + '\nlabels = "l.txt"'): (
            "no labels file at .*l.txt"
        ),
    }
    for path, message in table.items():
        with pytest.raises(ConfigurationError, match=message):
            find_model(path)
    for version in ("5", "newest"):
        with pytest.raises(ConfigurationError, match=f"has no version {version}; it has 1"):
            find_model(tmp_path / "v", version=version)


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("daisy\n sun flower \nröses\n\n", encoding="utf-8")
    assert read_labels(path) == ("daisy", "sun flower", "röses")
    for content in (b"", b"\n\n", b"a\n\nb\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"labels\.txt"):
            read_labels(path)
    with pytest.raises(ConfigurationError, match="no labels file at"):
        read_labels(tmp_path / "missing.txt")


def test_the_code_of_a_python_class_alone(tmp_path: Path) -> None:
    """What is missing is told in the words that are to be written."""
    code = tmp_path / "m" / "mine.py"
    code.parent.mkdir()
    code.write_text("class Model: ...\n")
    for path in (code.parent, code):
        with pytest.raises(
            ConfigurationError, match='framework = "python" and class = "mine:CLASS"'
        ):
            find_model(path)
