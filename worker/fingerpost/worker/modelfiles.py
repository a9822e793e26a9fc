"""Find a model's files, its name, its version and its labels in what the operator named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from fingerpost.registry import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service, check_version

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ModelFiles", "ModelFormat", "find_model", "read_labels"]

_LABEL_FILES = ("labels.txt", "output_labels.txt")


class ModelFormat(Enum):
    """How a model is stored."""

    SAVED_MODEL = "SavedModel folder"
    KERAS = ".keras file"
    FROZEN_GRAPH = "frozen TensorFlow 1 graph"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk; `labels` is empty where there is no labels file."""

    name: str
    version: str
    format: ModelFormat
    path: Path
    labels: tuple[str, ...]


def find_model(
    path: Path,
    *,
    labels: Path | None = None,
    name: str | None = None,
    version: str | None = None,
) -> ModelFiles:
    """Find the model that `path` means.

    `path` is a SavedModel folder, a `.keras` file, a frozen graph (`.pb`), a folder that holds
    exactly one of these, or a folder of numbered versions (`models/digits/3/`), of which the
    highest is taken unless `version` names another.

    Args:
        path: file or folder.
        labels: one label a line, in the order of the model's outputs; by default `labels.txt` or
            `output_labels.txt` beside the model.
        name: the model's name; by default that of its folder or file.
        version: by default the folder's number, else 1.

    Raises:
        ConfigurationError: nothing there, nothing that is a model, or a name that cannot be one.
    """
    if not path.exists():
        raise ConfigurationError(f"no model at {path}: there is no such file or folder")
    numbered = _versions(path)
    if numbered:
        if version is not None and int(version) not in numbered:
            known = ", ".join(str(number) for number in sorted(numbered))
            raise ConfigurationError(f"{path} has no version {version}; it has {known}")
        number = max(numbered) if version is None else int(version)
        folder, version, own_name = numbered[number], str(number), path.resolve().name
    else:
        folder, own_name = path, path.resolve().stem if path.is_file() else path.resolve().name
        if re.fullmatch(r"[0-9]+", own_name):
            version, own_name = version or str(int(own_name)), path.resolve().parent.name
    file, kind = _model_in(folder)
    try:
        name = check_service(name or own_name)
        version = check_version(version or "1")
    except InvalidName as error:
        raise ConfigurationError(f"{error}; choose one with --name") from error
    return ModelFiles(
        name=name,
        version=version,
        format=kind,
        path=file,
        labels=read_labels(labels) if labels else _labels_beside(file),
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """Read one label a line, UTF-8, blank lines at the end passed over.

    Raises:
        ConfigurationError: missing, unreadable, empty, or a blank line among the labels.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except FileNotFoundError as error:
        raise ConfigurationError(f"no labels file at {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"labels file {path} cannot be read: {error}") from error
    labels = tuple(line.strip() for line in lines)
    if not labels or not all(labels):
        raise ConfigurationError(f"labels file {path} must have one label on every line")
    return labels


def _versions(path: Path) -> dict[int, Path]:
    if not path.is_dir():
        return {}
    return {
        int(entry.name): entry
        for entry in path.iterdir()
        if entry.is_dir() and re.fullmatch(r"[0-9]{1,18}", entry.name)
    }


def _model_in(path: Path) -> tuple[Path, ModelFormat]:
    if path.is_file():
        if path.suffix == ".keras":
            return path, ModelFormat.KERAS
        if path.suffix == ".pb":
            return path, ModelFormat.FROZEN_GRAPH
        raise ConfigurationError(
            f"{path} is no model: expected a .keras file, a frozen graph (.pb) or a folder"
        )
    if (path / "saved_model.pb").is_file():
        return path, ModelFormat.SAVED_MODEL
    files = sorted([*path.glob("*.keras"), *path.glob("*.pb")])
    if len(files) == 1:
        return _model_in(files[0])
    found = ", ".join(file.name for file in files) or "nothing of the kind"
    raise ConfigurationError(
        f"{path} is no model: expected saved_model.pb, one .keras file, one frozen graph (.pb), "
        f"or numbered version folders; found {found}"
    )


def _labels_beside(file: Path) -> tuple[str, ...]:
    folder = file if file.is_dir() else file.parent
    for name in _LABEL_FILES:
        if (folder / name).is_file():
            return read_labels(folder / name)
    return ()
