"""What a look at the disk finds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fingerpost.errors import ConfigurationError
from fingerpost.worker.repository.sources import ModelFolder, ModelRoot
from fingerpost.worker.repository.versions.policy import VersionPolicy
from tests.support.repository import write_version

LATEST = VersionPolicy(latest=1)


def test_every_step_of_a_copy_changes_the_fingerprint(tmp_path: Path) -> None:
    whole = write_version(tmp_path / "elsewhere", 2)
    source = ModelFolder(tmp_path / "flowers", policy=LATEST)
    place = tmp_path / "flowers" / "2"
    place.mkdir(parents=True)
    assert source.scan()["flowers"].versions == {}, "an empty folder is no version"
    seen = set()
    for file in sorted(whole.iterdir()):
        data = file.read_bytes()
        for part in (data[:5], data):
            (place / file.name).write_bytes(part)
            seen.add(source.fingerprint("flowers", 2))
    assert len(seen) == 6
    assert source.scan() == source.scan()
    os.utime(place / "labels.txt", (1, 1))
    assert source.fingerprint("flowers", 2) not in seen


def test_only_numbers_are_versions_and_only_names_are_models(tmp_path: Path) -> None:
    write_version(tmp_path / "flowers", 3)
    for name in ("4.partial", ".5", "six", "labels.txt"):
        shutil.copytree(tmp_path / "flowers" / "3", tmp_path / "flowers" / name)
    for name in (".hidden", "flowers.partial", "No", "readme.md"):
        shutil.copytree(tmp_path / "flowers" / "3", tmp_path / name / "1")
    (tmp_path / "file").write_text("no folder")
    found = ModelRoot(tmp_path, policy=LATEST).scan()
    assert {name: set(each.versions) for name, each in found.items()} == {"flowers": {3}}


def test_the_folder_of_one_model_is_no_folder_of_models(tmp_path: Path) -> None:
    write_version(tmp_path / "flowers", 3)
    with pytest.raises(ConfigurationError, match="is the folder of one model.*--model"):
        ModelRoot(tmp_path / "flowers", policy=LATEST).scan()
    write_version(tmp_path / "7", 3)
    assert ModelRoot(tmp_path, policy=LATEST, only=("7",)).scan()["7"].versions.keys() == {3}


def test_a_settings_file_that_cannot_be_read_is_told_of(tmp_path: Path) -> None:
    write_version(tmp_path / "flowers", 3)
    (tmp_path / "flowers" / "versions.toml").write_text("policy = ")
    found = ModelRoot(tmp_path, policy=LATEST).scan()["flowers"]
    assert (set(found.versions), found.settings) == ({3}, None)
    assert "versions.toml" in found.error


def test_a_folder_that_is_gone_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    for source in (
        ModelFolder(tmp_path / "flowers", policy=LATEST),
        ModelRoot(tmp_path / "models", policy=LATEST),
    ):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            source.scan()


def test_a_folder_whose_name_is_no_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--name"):
        ModelFolder(tmp_path / "My_Model", policy=LATEST)
    assert ModelFolder(tmp_path / "My_Model", name="flowers", policy=LATEST).name == "flowers"
