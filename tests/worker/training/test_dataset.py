"""What a folder of class folders holds, with everything that people leave in such folders."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from fingerpost.errors import ConfigurationError
from fingerpost.worker.training import SilentProgress, scan
from fingerpost.worker.training.dataset import read_image, split

pytestmark = pytest.mark.shell

if TYPE_CHECKING:
    from pathlib import Path


def _paint(path: Path, size: tuple[int, int] = (20, 10), **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (200, 30, 30)).save(path, **options)


def _classes(root: Path, **counts: int) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            _paint(root / name / f"{number}.png")
    return root


def test_labels_are_the_sorted_folder_names_whatever_they_are(tmp_path: Path) -> None:
    for name in ("tulip", "black-eyed susan", "Rose", "向日葵", "10", "2"):
        _classes(tmp_path, **{name: 2})
    _paint(tmp_path / ".cache" / "a.png")
    (tmp_path / "LICENSE.txt").write_text("not a class")
    labels = scan(tmp_path).labels
    assert labels == ("10", "2", "Rose", "black-eyed susan", "tulip", "向日葵")


def test_every_format_is_read_and_judged_by_content(tmp_path: Path) -> None:
    _classes(tmp_path, a=2)
    for kind in ("jpg", "png", "webp", "bmp", "gif", "tiff"):
        _paint(tmp_path / "b" / f"{kind}.{kind}")
    _paint(tmp_path / "b" / "deeper" / "jpeg-named.dat", format="JPEG")
    found = scan(tmp_path)
    assert Counter(sample.label for sample in found.images) == {0: 2, 1: 7}
    assert not found.skipped
    assert found.median_side == 15


def test_bad_images_are_named_with_the_reason_and_skipped(tmp_path: Path) -> None:
    _classes(tmp_path, a=3, b=2)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[:50])
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("about these images")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"hidden")
    _paint(tmp_path / "b" / "paper.ico", format="ICO")
    found = scan(tmp_path)
    skipped = {item.path.name: item.reason for item in found.skipped}
    assert list(skipped) == ["cut.png", "empty.jpg", "notes.txt", "paper.ico"]
    assert "empty" in skipped["empty.jpg"]
    assert "not an image of a supported format" in skipped["notes.txt"]
    assert len(found.images) == 5


def test_exif_orientation_counts(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    _paint(tmp_path / "turned.jpg", (40, 20), exif=exif)
    assert read_image(tmp_path / "turned.jpg", None).shape == (40, 20, 3)
    assert read_image(tmp_path / "turned.jpg", 16).shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, r"fewer than 2 class folders \(none\)"),
        ({"only": 5}, r"fewer than 2 class folders \('only'\)"),
        ({"a": 2, "empty": 0}, "empty' has 0 usable images"),
        ({"a": 2, "lone": 1}, "lone' has 1 usable images"),
    ],
)
def test_too_little_is_refused(tmp_path: Path, counts: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        scan(_classes(tmp_path, **counts))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no folder .*nowhere"):
        scan(tmp_path / "nowhere")


def test_a_class_of_bad_images_shows_one_of_them(tmp_path: Path) -> None:
    _classes(tmp_path, a=2, b=1)
    (tmp_path / "b" / "x.png").write_bytes(b"junk")
    with pytest.raises(ConfigurationError, match=r"1 usable.*1 skipped, such as 'x.png'"):
        scan(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "a\u2028b", "blank ", os.fsdecode(b"latin-\xe9")])
def test_a_name_that_is_no_line_of_labels_is_refused(tmp_path: Path, name: str) -> None:
    try:
        _classes(tmp_path, **{"a": 2, name: 2})
    except OSError:
        return  # a file system that refuses such a name never shows one
    with pytest.raises(ConfigurationError, match="rename it"):
        scan(tmp_path)


def test_the_split_is_stratified_and_the_same_every_time(tmp_path: Path) -> None:
    found = scan(_classes(tmp_path, few=2, many=20))
    training, validation = split(found, 0.15, seed=1)
    assert Counter(sample.label for sample in validation) == {0: 1, 1: 3}
    assert Counter(sample.label for sample in training) == {0: 1, 1: 17}
    assert {s.path for s in training}.isdisjoint(s.path for s in validation)
    assert split(found, 0.15, seed=1) == (training, validation)
    assert split(found, 0.15, seed=2) != (training, validation)
    assert Counter(s.label for s in split(found, 0.99, seed=1)[0]) == {0: 1, 1: 1}


def test_an_interrupt_while_reading_ends_it(tmp_path: Path) -> None:
    class Interrupt(SilentProgress):
        def advance(self, units: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(_classes(tmp_path, a=20, b=20), Interrupt())
