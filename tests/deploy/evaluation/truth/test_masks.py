"""Masks beside images, right and wrong."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fingerpost.deploy.evaluation.truth.masks import MaskFolder
from fingerpost.errors import ConfigurationError, InvalidRequest


def write(folder: Path, mask: Image.Image) -> tuple[Path, Path]:
    images, masks = folder / "images", folder / "masks"
    for each in (images / "deep", masks / "deep"):
        each.mkdir(parents=True)
    Image.new("RGB", (3, 2)).save(images / "deep" / "a.jpg")
    mask.save(masks / "deep" / "a.png")
    return images, masks


def palette() -> Image.Image:
    mask = Image.fromarray(np.array([[0, 1, 2], [2, 1, 255]], np.uint8), "P")
    mask.putpalette([number // 3 for number in range(768)])
    return mask


@pytest.mark.parametrize("mode", ["P", "L"])
def test_a_palettes_numbers_are_the_classes(tmp_path: Path, mode: str) -> None:
    mask = palette() if mode == "P" else Image.fromarray(np.asarray(palette()))
    (found,) = MaskFolder.read(*write(tmp_path, mask)).images
    assert found.path.endswith("deep/a.jpg")
    assert found.classes().tolist() == [[0, 1, 2], [2, 1, 255]]


def test_sixteen_bits(tmp_path: Path) -> None:
    mask = Image.fromarray(np.array([[300, 0, 1]], np.uint16))
    (found,) = MaskFolder.read(*write(tmp_path, mask)).images
    assert found.classes().tolist() == [[300, 0, 1]]


def test_colours_are_not_classes(tmp_path: Path) -> None:
    (found,) = MaskFolder.read(*write(tmp_path, Image.new("RGB", (3, 2)))).images
    with pytest.raises(InvalidRequest, match=r"masks/deep/a.png has pixels of mode RGB: they must"):
        found.classes()
    found.mask.write_bytes(b"no image")
    with pytest.raises(InvalidRequest, match=r"masks/deep/a.png cannot be read"):
        found.classes()


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    images, masks = write(tmp_path, palette())
    with pytest.raises(ConfigurationError, match=r"there is no folder '.*/none'"):
        MaskFolder.read(images, tmp_path / "none")
    with pytest.raises(ConfigurationError, match="is the folder of the images"):
        MaskFolder.read(images, images)
    (masks / "deep" / "a.png").unlink()
    with pytest.raises(ConfigurationError, match=r"a.jpg' has no mask '.*/masks/deep/a.png'"):
        MaskFolder.read(images, masks)


def test_gray_of_four_bits_would_be_stretched(tmp_path: Path) -> None:
    (found,) = MaskFolder.read(*write(tmp_path, palette())).images

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\x00\x12")) + chunk(b"IEND", b"")
    found.mask.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)
    with pytest.raises(InvalidRequest, match="has pixels of mode L;4: they must be gray of 8"):
        found.classes()
