"""Annotation files in COCO's form, right and wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fingerpost.deploy.evaluation.truth.coco import CocoFile, DrawnBox
from fingerpost.errors import ConfigurationError


def content() -> dict[str, Any]:
    return {
        "info": {"description": "what COCO has besides"},
        "images": [
            {"id": 5, "file_name": "a.png", "width": 40, "height": 30, "license": 1},
            {"id": 0, "file_name": "deep/b.png"},
        ],
        "annotations": [
            {"id": 0, "image_id": 5, "category_id": 2, "bbox": [1, 2, 3.5, 4], "area": 9.5},
            {"image_id": 5, "category_id": 1, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        ],
        "categories": [
            {"id": 2, "name": "cat", "supercategory": "animal"},
            {"id": 1, "name": "ant"},
        ],
    }


def write(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    (folder / "deep").mkdir(exist_ok=True)
    for name in ("a.png", "deep/b.png"):
        Image.new("RGB", (40, 30)).save(folder / name)
    said = content()
    change(said)
    path = folder / "boxes.json"
    path.write_text(json.dumps(said))
    return path


def test_what_is_in_it(tmp_path: Path) -> None:
    found = CocoFile.read(write(tmp_path), tmp_path)
    assert found.labels == ("cat", "ant")
    first, second = found.images
    assert (first.path, second.path) == (str(tmp_path / "a.png"), str(tmp_path / "deep" / "b.png"))
    assert second.boxes == ()
    cat = DrawnBox(label="cat", left=1, top=2, width=3.5, height=4, area=9.5, crowd=False)
    ant = DrawnBox(label="ant", left=0, top=0, width=40, height=30, area=1200, crowd=True)
    assert first.boxes == (cat, ant)


def _images(said: dict[str, Any], **change: Any) -> None:
    said["images"][0].update(change)


def _boxes(said: dict[str, Any], **change: Any) -> None:
    said["annotations"][0].update(change)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no list": (lambda said: said.pop("images"), "missing required field `images`"),
    "no number": (lambda said: _images(said, id="x"), r"got `str` - at `\$\.images\[0\]\.id`"),
    "three numbers": (lambda said: _boxes(said, bbox=[1, 2, 3]), "of length 4"),
    "no images": (lambda said: said.update(images=[], annotations=[]), "has no images: add"),
    "image twice": (lambda said: _images(said, id=0), "image id 0 is there 2 times"),
    "file twice": (lambda said: _images(said, file_name="deep/b.png"), "file_name 'deep/b.png'"),
    "category twice": (
        lambda said: said["categories"][0].update(name="ant"),
        "category 'ant' is there 2 times",
    ),
    "unknown image": (
        lambda said: _boxes(said, image_id=77),
        r"annotations\[0\] is of image 77, which is not in images: add it",
    ),
    "unknown category": (
        lambda said: _boxes(said, category_id=9),
        r"annotations\[0\] has category 9, which is not in categories",
    ),
    "negative": (lambda said: _boxes(said, bbox=[1, 2, -3, 4]), r"bbox \[1.0, 2.0, -3.0, 4.0\]"),
    "missing file": (
        lambda said: _images(said, file_name="no.png"),
        r"names 1 of 2 images that are not in '.*', such as 'no.png': give .* --images",
    ),
    "out of the folder": (
        lambda said: _images(said, file_name="../../etc/passwd"),
        r"file_name '../../etc/passwd' leads out of",
    ),
    "absolute": (lambda said: _images(said, file_name="/etc/passwd"), "leads out of"),
    "other size": (
        lambda said: _images(said, width=80, height=60),
        "'a.png' is 80 x 60 there, but the file is 40 x 30: annotate the files that are sent",
    ),
    "outside": (
        lambda said: _boxes(said, bbox=[40, 2, 3, 4]),
        r"a box of image 'a.png', \[40.0, 2.0, 3.0, 4.0\], lies outside of it; it is 40 x 30",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    path = write(tmp_path, change)
    with pytest.raises(ConfigurationError, match=message) as caught:
        CocoFile.read(path, tmp_path)
    assert str(path) in caught.value.message


def test_no_file_no_json_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none.json cannot be read: No such file"):
        CocoFile.read(tmp_path / "none.json", tmp_path)
    path = tmp_path / "bad.json"
    for bad in (b"{", b"\xff\xfe", b"[]", b'{"images": [], "annotations": [1'):
        path.write_bytes(bad)
        with pytest.raises(ConfigurationError, match="not an annotation file in COCO's form"):
            CocoFile.read(path, tmp_path)
    with pytest.raises(ConfigurationError, match="there is no folder"):
        CocoFile.read(write(tmp_path), tmp_path / "none")


def test_boxes_of_a_turned_image(tmp_path: Path) -> None:
    path = write(tmp_path, lambda said: _images(said, width=30, height=40))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png", exif=exif)
    with pytest.raises(ConfigurationError, match="give --upright: its EXIF orientation is 6"):
        CocoFile.read(path, tmp_path)
    with pytest.raises(ConfigurationError, match="lies outside of it; it is 30 x 40"):
        CocoFile.read(
            write_turned(tmp_path, lambda said: _boxes(said, bbox=[35, 0, 2, 2])),
            tmp_path,
            upright=True,
        )
    CocoFile.read(write_turned(tmp_path), tmp_path, upright=True)
    stored = write_turned(tmp_path, lambda said: _images(said, width=40, height=30))
    with pytest.raises(ConfigurationError, match="leave --upright out"):
        CocoFile.read(stored, tmp_path, upright=True)


def write_turned(folder: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """The file alone, of an image that is 30 x 40 as it is shown."""
    said = content()
    _images(said, width=30, height=40)
    change(said)
    said["annotations"][1]["bbox"] = [0, 0, 30, 40]
    path = folder / "boxes.json"
    path.write_text(json.dumps(said))
    return path


def test_an_image_that_cannot_be_opened_is_left_to_the_model(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    assert len(CocoFile.read(path, tmp_path).images) == 2


def test_a_category_that_the_model_lacks(tmp_path: Path) -> None:
    found = CocoFile.read(write(tmp_path), tmp_path)
    found.check_labels("pets", ["ant", "cat", "dog"])
    with pytest.raises(
        ConfigurationError, match=r"the category 'cat' is not a label of model pets"
    ):
        found.check_labels("pets", ["ant", "dog"])
    unused = CocoFile.read(
        write(tmp_path, lambda said: said["categories"].append({"id": 3, "name": "yak"})), tmp_path
    )
    unused.check_labels("pets", ["ant", "cat"])
