"""Files of numbers, right and wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.deploy.evaluation.truth.targets import TargetFile
from fingerpost.errors import ConfigurationError


def read(folder: Path, text: str | bytes, name: str = "targets.csv") -> TargetFile:
    for each in ("a.png", "deep/b.png"):
        (folder / "images" / each).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / each).touch()
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return TargetFile.read(path, folder / "images")


@pytest.mark.parametrize(
    ("name", "text", "labels"),
    [
        ("t.csv", "file,age,height\na.png,31,1.7\ndeep/b.png,8,1.3\n", ("age", "height")),
        ("t.csv", "\ufefffile, age ,height\r\n\r\na.png,31,1.7\r\ndeep/b.png, 8,1.3\r\n",
         ("age", "height")),
        ("t.txt", 'a.png,31,1.7\n"deep/b.png",8,13e-1\n', ()),
        ("t.json", '{"a.png": [31, 1.7], "deep/b.png": [8, 1.3]}', ()),
        ("t.JSON", '{"a.png": {"age": 31, "height": 1.7}, "deep/b.png": {"height": 1.3, "age": 8}}',
         ("age", "height")),
    ],
)  # fmt: skip
def test_both_forms(tmp_path: Path, name: str, text: str, labels: tuple[str, ...]) -> None:
    found = read(tmp_path, text, name)
    assert found.labels == labels
    assert [(Path(each.path).name, each.values) for each in found.images] == [
        ("a.png", (31.0, 1.7)),
        ("b.png", (8.0, 1.3)),
    ]


def test_one_number(tmp_path: Path) -> None:
    for name, text in (("t.csv", "a.png,-2"), ("t.json", '{"a.png": -2}')):
        (only,) = read(tmp_path, text, name).images
        assert only.values == (-2.0,)


WRONG = {
    "nothing": ("t.csv", "", "names no image"),
    "a head alone": ("t.csv", "file,age\n", "names no image"),
    "no number": ("t.csv", "a.png,1\ndeep/b.png,old", "'deep/b.png' has 'old'"),
    "no column": ("t.csv", "a.png\n", "has 0 numbers"),
    "infinite": ("t.csv", "a.png,inf", "'inf', which is not a finite number"),
    "NaN": ("t.csv", "a.png,nan", "not a finite number"),
    "true": ("t.json", '{"a.png": true}', "'True', which is not a finite number"),
    "an endless number": ("t.json", '{"a.png": 1e999}', "out of range"),
    "a text in a list": ("t.json", '{"a.png": [[1]]}', "finite number"),
    "null": ("t.json", '{"a.png": null}', "'None'"),
    "ragged": ("t.csv", "a.png,1,2\ndeep/b.png,1", "has 1 numbers, and others have 2"),
    "more than the head": ("t.csv", "file,x\na.png,1,2", "has 2 numbers, and others have 1"),
    "twice": ("t.csv", "a.png,1\na.png,2", "'a.png' is there twice"),
    "missing": ("t.csv", "c.png,1", "1 of 1 images that are not in"),
    "outside": ("t.csv", "../a.png,1", "leads out of"),
    "absolute": ("t.json", '{"/etc/passwd": 1}', "leads out of"),
    "a quote": ("t.csv", 'a.png,"1', "is not CSV"),
    "no JSON": ("t.json", "a.png,1", "is not JSON of targets"),
    "a list": ("t.json", "[1]", "is not JSON of targets"),
    "deep": ("t.json", '{"a":' + "[" * 100_000, "is not JSON of targets"),
    "other names": ("t.json", '{"a.png": {"x": 1}, "deep/b.png": {"y": 1}}', "other names"),
    "some names": ("t.json", '{"a.png": 1, "deep/b.png": {"y": 1}}', "which has none"),
    "a name twice": ("t.csv", "file,x,x\na.png,1,2", "a name of its own"),
    "no name": ("t.csv", "file,x,\na.png,1,2", "a name of its own"),
    "no text": ("t.csv", b"\xff\xfe", "is not UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, case: str) -> None:
    name, text, message = WRONG[case]
    with pytest.raises(ConfigurationError, match=message) as caught:
        read(tmp_path, text, name)
    assert name in caught.value.message


def test_no_file_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        TargetFile.read(tmp_path / "none.csv", tmp_path)
    (tmp_path / "t.csv").write_text("a.png,1")
    with pytest.raises(ConfigurationError, match="there is no folder"):
        TargetFile.read(tmp_path / "t.csv", tmp_path / "none")


def test_the_columns_are_those_of_the_model(tmp_path: Path) -> None:
    named = read(tmp_path, "file,height,age\na.png,1,2")
    assert named.places("m", ["age", "weight", "height"], 3) == [2, 0]
    assert named.places("m", [], 2) == [0, 1]
    with pytest.raises(ConfigurationError, match=r"column 'height' is not a value of model m, "):
        named.places("m", ["age"], 1)
    with pytest.raises(ConfigurationError, match="has 2 numbers for each image, and model m gives"):
        named.places("m", [], 3)
    unnamed = read(tmp_path, "a.png,1")
    assert unnamed.places("m", ["age"], 1) == [0]
    with pytest.raises(ConfigurationError, match=r"gives 2 \('age', 'height'\): name the columns"):
        unnamed.places("m", ["age", "height"], 2)
