"""Weights of a Keras model that unfold to far more than their file is."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.backends.base import LoadConfig
from fingerpost.worker.backends.loading import load_backend
from fingerpost.worker.models.files import ManifestOverrides, find_model
from tests.support.later import later

if TYPE_CHECKING:
    import keras
else:
    keras = later("keras")


def test_a_small_file_with_huge_weights_is_refused(tmp_path: Path) -> None:
    import h5py

    image = keras.Input((8, 8, 3))
    scores = keras.layers.Dense(2)(keras.layers.Flatten()(image))
    keras.Model(image, scores).save(tmp_path / "good.keras")
    size = ManifestOverrides(image_size=8)
    load_backend(find_model(tmp_path / "good.keras", overrides=size), LoadConfig()).close()
    with h5py.File(tmp_path / "huge.h5", "w") as weights:
        weights.create_dataset(
            "layers/dense/vars/0", (1 << 30,), "f4", chunks=(1 << 20,), compression="gzip"
        )
    with (
        zipfile.ZipFile(tmp_path / "good.keras") as good,
        zipfile.ZipFile(tmp_path / "huge.keras", "w") as huge,
    ):
        for each in good.namelist():
            replaced = each.endswith(".h5")
            content = (tmp_path / "huge.h5").read_bytes() if replaced else good.read(each)
            huge.writestr(each, content)
    with pytest.raises(ConfigurationError, match="unfold to 4,294,967,296 bytes, over the limit"):
        load_backend(find_model(tmp_path / "huge.keras", overrides=size), LoadConfig())
