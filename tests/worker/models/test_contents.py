"""Which symlinks a model's folder may have."""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.models.files import find_model
from fingerpost.worker.repository.sources import ModelRoot
from fingerpost.worker.repository.versions.policy import VersionPolicy
from tests.support.repository import write_version

LATEST = VersionPolicy(latest=1)


def test_a_config_map_of_kubernetes(tmp_path: Path) -> None:
    """The whole of `models` is one volume, whose files are symlinks to `..data`."""
    models = tmp_path / "models"
    data = models / "..2026_11_27_08_00_00.1"
    real = write_version(tmp_path / "made", 3)
    (data / "flowers").mkdir(parents=True)
    shutil.copytree(real, data / "flowers" / "3")
    (data / "flowers" / "versions.toml").write_text('policy = "all"\n')
    (models / "..data").symlink_to(data.name)
    place = models / "flowers" / "3"
    place.mkdir(parents=True)
    for file in real.iterdir():
        (place / file.name).symlink_to(f"../../..data/flowers/3/{file.name}")
    (models / "flowers" / "versions.toml").symlink_to("../..data/flowers/versions.toml")
    source = ModelRoot(models, policy=LATEST)
    found = source.scan()["flowers"]
    assert (found.error, set(found.versions)) == ("", {3})
    assert found.settings is not None
    assert found.settings.policy == VersionPolicy.parse("all")
    assert source.files("flowers", 3).labels == ("cold", "v3")


def test_folders_may_be_symlinks_to_another_volume(tmp_path: Path) -> None:
    real = write_version(tmp_path / "nfs" / "store", 8)
    (real / "more.txt").symlink_to("labels.txt")
    models = tmp_path / "models"
    (models / "flowers").mkdir(parents=True)
    (models / "flowers" / "3").symlink_to(real)
    (models / "birds").symlink_to(tmp_path / "nfs" / "store")
    source = ModelRoot(models, policy=LATEST)
    found = source.scan()
    assert {name: each.error for name, each in found.items()} == {"flowers": "", "birds": ""}
    assert source.files("flowers", 3).labels == ("cold", "v8")
    assert source.files("birds", 8).labels == ("cold", "v8")


def test_versions_may_share_files_of_their_model(tmp_path: Path) -> None:
    version = write_version(tmp_path / "flowers", 3)
    (version / "labels.txt").rename(tmp_path / "flowers" / "labels.txt")
    (version / "labels.txt").symlink_to("../labels.txt")
    for path in (tmp_path / "flowers", version):
        assert find_model(path).labels == ("cold", "v3")


def test_files_elsewhere_need_the_option(tmp_path: Path) -> None:
    """Hugging Face's cache: `snapshots/REVISION/FILE` is a symlink to `blobs/HASH`."""
    real = write_version(tmp_path / "made", 1)
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(sorted(real.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    with pytest.raises(ConfigurationError, match=r"outside of .*: copy .* --follow-symlinks"):
        find_model(snapshot)
    assert find_model(snapshot, follow_symlinks=True).labels == ("cold", "v1")
    os.mkfifo(blobs / "pipe")
    (snapshot / "weights").symlink_to("../../blobs/pipe")
    with pytest.raises(ConfigurationError, match="weights is a named pipe"):
        find_model(snapshot, follow_symlinks=True)


def test_a_model_of_one_file(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(b"weights")
    (tmp_path / "secret").write_text("key\n")
    folder = tmp_path / "here"
    folder.mkdir()
    model = folder / "flowers.onnx"
    model.symlink_to("../blobs/1")  # the operator named it
    assert find_model(model).path == model
    (folder / "labels.txt").symlink_to("../secret")
    with pytest.raises(ConfigurationError, match="labels.txt is a symlink to .*secret, outside"):
        find_model(model)
    pipe = folder / "pipe.onnx"
    os.mkfifo(pipe)
    (folder / "labels.txt").unlink()
    with pytest.raises(ConfigurationError, match=r"pipe\.onnx is a named pipe"):
        find_model(pipe)


@pytest.mark.parametrize("find", [find_model, partial(find_model, follow_symlinks=True)])
def test_a_circle_of_folders_ends(tmp_path: Path, find: partial) -> None:  # type: ignore[type-arg]
    version = write_version(tmp_path / "flowers", 1)
    (version / "again").symlink_to(".")
    (version / "up").symlink_to("..")
    assert find(version).labels == ("cold", "v1")


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("flowers.onnx", 1 << 31, r"flowers\.onnx has 2,147,483,648 bytes; a \.onnx file has at"),
        ("flowers.pb", 1 << 31, "at most 2,147,483,647"),
        ("flowers.pt2", 1 << 43, "8,796,093,022,208 bytes, more than the .* of this machine's"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_not_read(
    tmp_path: Path, name: str, size: int, message: str
) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(size)  # a hole: it takes no space
    with pytest.raises(ConfigurationError, match=message):
        find_model(tmp_path / name)
