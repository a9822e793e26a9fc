"""The digits on disk: all there, split without overlap, lossless, and the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.support.later import later

from fingerpost.deploy.demo.digits import SIDE, Digits, write_digits
from fingerpost.errors import ConfigurationError
from fingerpost.worker.training import FitConfig, NetworkConfig
from fingerpost.worker.training.dataset import scan, split

if TYPE_CHECKING:
    from pathlib import Path

datasets = later("sklearn.datasets")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Digits:
    return write_digits(tmp_path_factory.mktemp("digits"))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_digit_is_written_once_and_every_class_is_split_alike(written: Digits) -> None:
    train, held_out = _files(written.train), _files(written.held_out)
    assert not train.keys() & held_out.keys()
    assert len(train | held_out) == 1797
    assert (len(train), len(held_out)) == (written.train_images, written.held_out_images)
    for digit in range(10):
        sides = [sum(name.startswith(f"{digit}/") for name in side) for side in (train, held_out)]
        assert sides[1] / sum(sides) == pytest.approx(0.2, abs=0.003)


def test_an_epoch_of_the_demo_is_one_pass(written: Digits) -> None:
    """With the least steps of an epoch one higher than its batches, it took two."""
    training, _ = split(scan(written.train), share=0.15, seed=0)
    batches = -(-len(training) // FitConfig().batch_size)
    assert batches == NetworkConfig(backbone="small").min_epoch_steps


def test_the_enlarged_png_gives_the_original_back(written: Digits) -> None:
    original = datasets.load_digits()
    for path in sorted(written.held_out.rglob("*.png"))[::40]:
        number = int(path.stem)
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (SIDE, SIDE))
            pixels = np.asarray(image)
        block = SIDE // 8
        assert (pixels == np.kron(pixels[::block, ::block], np.ones((block, block)))).all()
        assert (np.round(pixels[::block, ::block] / 255 * 16) == original.images[number]).all()
        assert original.target[number] == int(path.parent.name)


def test_a_second_call_changes_nothing(written: Digits) -> None:
    folder = written.train.parent
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    assert len(first) == 1797
    write_digits(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == first


def test_another_split_leaves_no_image_on_both_sides(written: Digits, tmp_path: Path) -> None:
    write_digits(tmp_path, seed=2, held_out=0.5)
    again = write_digits(tmp_path)
    assert _files(written.train.parent) == _files(tmp_path)
    assert again.train_images + again.held_out_images == 1797


@pytest.mark.parametrize("held_out", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_out_of_range_is_refused(tmp_path: Path, held_out: float) -> None:
    with pytest.raises(ConfigurationError, match="held_out is"):
        write_digits(tmp_path, held_out=held_out)
    assert not list(tmp_path.iterdir())


def test_an_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "train").write_text("a file stands in the way")
    with pytest.raises(ConfigurationError, match="cannot write the digits"):
        write_digits(tmp_path)
