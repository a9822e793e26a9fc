"""What a worker says about a model as it loads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.worker.models.files import ManifestOverrides, find_model
from fingerpost.worker.repository.loader import _warn_of_teachable_machine

SCALED = ManifestOverrides(input_mean=127.5, input_std=127.5)


@pytest.mark.parametrize(
    ("labels", "overrides", "manifest", "said"),
    [
        ("0 cat\n1 dog\n", None, "", True),
        ("cat\ndog\n", None, "", False),
        ("0 cat\n0 dog\n", None, "", False),
        ("0 cat\n1 dog\n", SCALED, "", False),
        ("0 cat\n1 dog\n", None, 'framework = "tensorflow"\nfile = "keras_model.h5"\n', False),
    ],
)
def test_a_model_of_teachable_machine_that_gets_its_pixels_unscaled(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    labels: str,
    overrides: ManifestOverrides | None,
    manifest: str,
    said: bool,
) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    (folder / "keras_model.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "labels.txt").write_text(labels)
    if manifest:
        (folder / "model.toml").write_text(manifest)
    _warn_of_teachable_machine(find_model(folder, overrides=overrides))
    assert ("--input-mean 127.5 --input-std 127.5" in caplog.text) is said
