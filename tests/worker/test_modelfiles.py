"""Finding models: every layout that is accepted, and one clear line for each that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from fingerpost.registry import ConfigurationError
from fingerpost.worker.modelfiles import ModelFormat, find_model, read_labels


def saved_model(folder: Path, labels: str = "a\nb\n") -> Path:
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"-")
    (folder / "labels.txt").write_text(labels)
    return folder


def test_the_highest_version_is_taken_by_number(tmp_path: Path) -> None:
    for version in ("2", "9", "10"):
        saved_model(tmp_path / "flowers" / version)
    found = find_model(tmp_path / "flowers")
    assert (found.name, found.version, found.labels) == ("flowers", "10", ("a", "b"))
    assert found.format is ModelFormat.SAVED_MODEL
    assert find_model(tmp_path / "flowers", version="2").path.name == "2"
    assert find_model(tmp_path / "flowers" / "9").version == "9"
    assert find_model(tmp_path / "flowers" / "9").name == "flowers"


def test_a_plain_folder_is_version_1(tmp_path: Path) -> None:
    found = find_model(saved_model(tmp_path / "digits"))
    assert (found.name, found.version) == ("digits", "1")


def test_single_files_and_folders_that_hold_one(tmp_path: Path) -> None:
    (tmp_path / "retrained").mkdir()
    graph = tmp_path / "retrained" / "output_graph.pb"
    graph.write_bytes(b"-")
    (tmp_path / "retrained" / "output_labels.txt").write_text("daisy\nroses\n")
    found = find_model(tmp_path / "retrained")
    assert (found.name, found.format) == ("retrained", ModelFormat.FROZEN_GRAPH)
    assert found.labels == ("daisy", "roses")
    keras = tmp_path / "cats.keras"
    keras.write_bytes(b"-")
    assert find_model(keras).name == "cats"
    assert find_model(keras).labels == ()
    assert find_model(graph, name="flowers", version="4").version == "4"


def test_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    saved_model(tmp_path / "Bad_Name")
    saved_model(tmp_path / "v" / "1")
    table = {
        tmp_path / "nowhere": "no model at .*nowhere",
        tmp_path / "empty": "expected saved_model.pb, .*found nothing of the kind",
        tmp_path / "notes.txt": r"notes.txt is no model: expected a \.keras file",
        tmp_path / "Bad_Name": "'Bad_Name' cannot name a service.*--name",
    }
    for path, message in table.items():
        with pytest.raises(ConfigurationError, match=message):
            find_model(path)
    with pytest.raises(ConfigurationError, match="has no version 5; it has 1"):
        find_model(tmp_path / "v", version="5")


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("daisy\n sun flower \nröses\n\n", encoding="utf-8")
    assert read_labels(path) == ("daisy", "sun flower", "röses")
    for content in (b"", b"\n\n", b"a\n\nb\n", b"\xff\xfe\x00"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"labels\.txt"):
            read_labels(path)
    with pytest.raises(ConfigurationError, match="no labels file at"):
        read_labels(tmp_path / "missing.txt")
