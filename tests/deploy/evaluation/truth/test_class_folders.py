"""Labels by folders, and what is said of folders that have none."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.deploy.evaluation.truth.class_folders import ClassFolders
from fingerpost.errors import ConfigurationError


def write(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes([number]))
    return folder


def test_each_folder_is_a_class(tmp_path: Path) -> None:
    write(tmp_path, "rose/2.png", "rose/deep/1.png", "daisy/1.jpg", ".git/1.png", "readme.txt")
    (tmp_path / "daisy" / "notes.txt").write_text("no image")
    found = ClassFolders.read(tmp_path)
    names = [
        (Path(each.path).relative_to(tmp_path).as_posix(), each.label) for each in found.images
    ]
    assert names == [("daisy/1.jpg", "daisy"), ("rose/2.png", "rose"), ("rose/deep/1.png", "rose")]
    assert found.classes == ("daisy", "rose")
    assert found.skipped == "daisy: 1 file that is not an image (notes.txt)"


def test_equal_files_are_one_image_of_several_labels(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png", "dog/2.png")
    (tmp_path / "dog" / "same.png").write_bytes((tmp_path / "cat" / "1.png").read_bytes())
    found = ClassFolders.read(tmp_path).merged()
    labels = [(Path(each.path).name, sorted(each.labels)) for each in found.images]
    assert labels == [("1.png", ["cat", "dog"]), ("2.png", ["dog"])]


def test_a_file_that_cannot_be_read_stays(tmp_path: Path) -> None:
    write(tmp_path, "cat/1.png")
    found = ClassFolders.read(tmp_path)
    (tmp_path / "cat" / "1.png").unlink()
    assert found.merged().images == found.images


def test_no_folder_no_classes_and_an_empty_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no folder '.*/none': give a folder"):
        ClassFolders.read(tmp_path / "none")
    write(tmp_path, "1.png")
    with pytest.raises(ConfigurationError, match=r"has no class folders: .* --annotations FILE"):
        ClassFolders.read(tmp_path)
    (tmp_path / "rose").mkdir()
    with pytest.raises(ConfigurationError, match="rose"):
        ClassFolders.read(tmp_path)


def test_a_class_that_the_model_lacks(tmp_path: Path) -> None:
    found = ClassFolders.read(write(tmp_path, "rose/1.png", "tulpe/1.png", "zebra/1.png"))
    found.check_labels("flowers", ["rose", "tulpe", "zebra", "daisy"])
    labels = ["rose", *(f"flower {number}" for number in range(9))]
    with pytest.raises(ConfigurationError) as caught:
        found.check_labels("flowers", labels)
    message = caught.value.message
    assert message.startswith("the class folder 'tulpe' and 1 more in ")
    assert "'rose', 'flower 0'" in message
    assert "and 2 more: name each folder after a label" in message
