"""The images among the files that a command line names."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from fingerpost.deploy.image_files import ImageFiles, missing_source
from fingerpost.errors import ConfigurationError


def image(form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, form)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name, data in {
        "b.png": image(),
        "a/damaged.jpg": b"",  # its suffix says that it should be an image
        "a/notes.txt": b"BMW is a car",
        "a/Thumbs.db": b"\xd0\xcf\x11\xe0",
        ".hidden/c.png": image(),
        "a/._b.png": b"\0\5\26\7",
        "a/.DS_Store": b"\0\0\0\1",
        "labels.csv": b"b.png,3\n",
        "LICENSE": b"MIT",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "a/notes.txt").write_bytes(b"no image")
    return folder


def test_a_folder(folder: Path) -> None:
    files = ImageFiles([str(folder)])
    assert list(files.names()) == [f"{folder}/a/damaged.jpg", f"{folder}/b.png"]
    assert (files.hidden, files.others) == (3, 4)
    assert files.skipped() == "4 files that are not images (LICENSE) and 3 hidden"


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"])
def test_images_without_a_suffix_of_images(tmp_path: Path, form: str) -> None:
    (tmp_path / "0017").write_bytes(image(form))
    (tmp_path / "0018.dat").write_bytes(image(form))
    (tmp_path / "0019").write_bytes(b"\0" * 40)
    files = ImageFiles([str(tmp_path)])
    assert [Path(each).name for each in files.names()] == ["0017", "0018.dat"]
    assert files.others == 1
    assert files.skipped() == "1 file that is not an image (0019)"


def test_a_pattern(folder: Path) -> None:
    files = ImageFiles([f"{folder}/**"])
    assert list(files.names()) == [f"{folder}/a/damaged.jpg", f"{folder}/b.png"]
    assert files.others == 4


def test_several_sources_and_each_name_once(folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "[1].png"
    odd.write_bytes(image())
    named = [f"{folder}/labels.csv", f"{folder}/b.png", f"{folder}/missing.png", str(odd)]
    files = ImageFiles([*named, str(folder)])
    # What is named itself is taken, whatever it is: its error says what is wrong with it.
    assert list(files.names()) == [*named, f"{folder}/a/damaged.jpg"]


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file at '.*': give a folder"):
        ImageFiles([str(tmp_path)]).names()
    with pytest.raises(ConfigurationError, match="there is no file at '.*nowhere"):
        ImageFiles([f"{tmp_path}/nowhere/*.png"]).names()
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".x.png").write_bytes(image())
    with pytest.raises(
        ConfigurationError, match=r"only 1 file that is not an image \(notes.txt\) and 1 hidden"
    ):
        ImageFiles([str(tmp_path)]).names()


def test_a_link_to_a_folder_above_ends(folder: Path) -> None:
    (folder / "up").symlink_to(folder)
    assert len(list(ImageFiles([str(folder)]).names())) == 2


def test_names_that_are_not_utf_8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9"
    Path(os.fsdecode(raw + b".png")).write_bytes(image())
    Path(os.fsdecode(raw + b".txt")).write_bytes(b"no image")
    files = ImageFiles([str(tmp_path)])
    assert [os.fsencode(each) for each in files.names()] == [raw + b".png"]
    assert files.skipped() == r"1 file that is not an image (caf\xe9.txt)"
    lines = io.TextIOWrapper(io.BytesIO(raw + b".png\n\n  \nb.png\r\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", lines)
    assert list(ImageFiles(["-"]).names()) == [os.fsdecode(raw + b".png"), "b.png"]


def test_a_path_with_nothing_at_it_is_found(tmp_path: Path) -> None:
    there = tmp_path / "a.png"
    there.write_bytes(b"")
    (tmp_path / "dangling").symlink_to("nowhere")
    given = [str(there), "-", f"{tmp_path}/*.jpg", f"{tmp_path}/dangling"]
    assert missing_source(given) is None
    assert missing_source([*given, "nodir", "b.png"]) == "nodir"
    assert missing_source([f"{there}/b.png"]) == f"{there}/b.png"
