"""Finds the files, manifest, name, version and labels of a model at a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from fingerpost.basics.config_file import check_regular
from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service, check_version
from fingerpost.worker.models.archives import check_archive, is_archive
from fingerpost.worker.models.contents import Bounds, check_size
from fingerpost.worker.models.formats import (
    SAVED_MODEL,
    check_format,
    file_in,
    inferred_manifest,
)
from fingerpost.worker.models.labels import LABEL_FILES, labels_files, labels_in, read_labels
from fingerpost.worker.models.manifest import (
    MANIFEST,
    Framework,
    Layout,
    Manifest,
    read_manifest,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.worker.models.private_copy import PrivateCopy

__all__ = [
    "ManifestOverrides",
    "ModelFiles",
    "find_model",
    "find_versions",
    "locate_model",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on disk.

    Attributes:
        name, version: what it is served as.
        folder: the folder that the manifest's paths are relative to.
        path: the model's file; the folder itself for a SavedModel and for a Python class.
        weights: Caffe's `.caffemodel`, OpenVINO's `.bin`.
        manifest: `model.toml`, or what the files imply, with the operator's overrides.
        inferred: whether there is no `model.toml`.
        labels: the names of the classes, in the order of the scores; empty without a labels file.
        labels_files: where they are read from: the first that exists. None of a Python object.
        digest: of all files, where a signature was verified; see `signature`.
        copy: keeps the verified copy of the files for as long as it is referred to.
    """

    name: str
    version: str
    folder: Path
    path: Path
    manifest: Manifest
    labels: tuple[str, ...]
    labels_files: tuple[Path, ...] = ()
    weights: Path | None = None
    inferred: bool = False
    digest: str = ""
    copy: PrivateCopy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOverrides:
    """Settings of the command line that override the manifest; None keeps the manifest's.

    Attributes:
        input_layer, output_layer: the tensors' names.
        input_mean, input_std: the model gets `(pixel - mean) / std`.
        image_size: height and width in pixels.
        layout: `NHWC` or `NCHW`, the order of the axes of pixels.
    """

    input_layer: str | None = None
    output_layer: str | None = None
    input_mean: float | None = None
    input_std: float | None = None
    image_size: int | None = None
    layout: str | None = None

    def apply(self, manifest: Manifest) -> Manifest:
        """The manifest with these settings in place of its own.

        Raises:
            ConfigurationError: a value that is not valid.
        """
        replace = msgspec.structs.replace
        size = self.image_size
        try:
            return replace(
                manifest,
                input=replace(
                    manifest.input,
                    **_given(name=self.input_layer, height=size, width=size),
                    **_given(layout=None if self.layout is None else Layout(self.layout)),
                ),
                output=replace(manifest.output, **_given(name=self.output_layer)),
                preprocessing=replace(
                    manifest.preprocessing, **_given(mean=self.input_mean, std=self.input_std)
                ),
            )
        except ValueError as error:
            raise ConfigurationError(
                f"{error}: change --image-size, --input-mean or --input-std"
            ) from error


def find_model(
    path: Path,
    *,
    labels: Path | None = None,
    name: str | None = None,
    version: str | None = None,
    overrides: ManifestOverrides | None = None,
    root: Path | None = None,
    follow_symlinks: bool = False,
    served: bool = True,
) -> ModelFiles:
    """Find the model at `path`.

    `path` is a folder with a `model.toml`; or a SavedModel folder, a model's file, or a folder that
    holds exactly one of these; or a folder of numbered versions (`models/digits/3/`), of which the
    highest is taken unless `version` names another.

    Without a `model.toml` a frozen graph gets pixels from 0 to 1, a Caffe model blue first; every
    other model gets 0..255, red first.

    Args:
        path: file or folder.
        labels: one label a line, in the order of the model's outputs; by default what `model.toml`
            names, else `labels.txt` or `output_labels.txt` beside the model.
        name: the model's name; by default that of its folder or file.
        version: by default the folder's number, else 1.
        overrides: settings that override the manifest.
        root: a folder around `path` into which symlinks may lead.
        follow_symlinks: whether symlinks of the model's files may lead everywhere, see `contents`.
        served: whether clients will ask for it by its name, so that this must be a valid one; else
            the name of its file or folder, which is only shown, may be any.

    Raises:
        ConfigurationError: there is nothing at `path`, or not a model, or a `model.toml` that does
            not fit it, or a name that is not valid; a symlink that leads out of the folder, a
            special file, or an archive that unfolds to far more than it is.
    """
    path, folder, own_name, version = locate_model(path, name=name, version=version, served=served)
    _check_contents(folder, path, root, follow=follow_symlinks)
    manifest, file, inferred = _read(folder)
    folder = folder.parent if folder.is_file() else folder
    weights = _weights(folder, file, manifest)
    for each in (file, weights or file):
        check_size(each)
    return ModelFiles(
        name=own_name,
        version=version,
        folder=folder,
        path=file,
        weights=weights,
        manifest=(overrides or ManifestOverrides()).apply(manifest),
        inferred=inferred,
        labels=read_labels(labels) if labels else labels_in(folder, manifest.labels),
        labels_files=(labels,) if labels else labels_files(folder, manifest.labels),
    )


def locate_model(
    path: Path, *, name: str | None, version: str | None, served: bool = True
) -> tuple[Path, Path, str, str]:
    """The model's path, the folder or file of its version, its name and its version.

    Raises:
        ConfigurationError: see `find_model`.
    """
    if not path.exists():
        raise ConfigurationError(f"no model at {path}: there is no such file or folder")
    if path.name == SAVED_MODEL and path.is_file():
        path = path.parent
    if not path.is_dir():
        check_regular(path, path.stat().st_mode)
    numbered = {} if path.is_file() or (path / MANIFEST).is_file() else find_versions(path)
    if numbered:
        number = _chosen(path, numbered, version)
        folder, version, own_name = numbered[number], str(number), path.resolve().name
    else:
        folder, own_name = path, path.resolve().stem if path.is_file() else path.resolve().name
        if re.fullmatch(r"[0-9]+", own_name):
            version, own_name = version or str(int(own_name)), path.resolve().parent.name
    try:
        if served or name:
            own_name = check_service(name or own_name)
        version = check_version(version or "1")
    except InvalidName as error:
        raise ConfigurationError(f"{error}; choose one with --name") from error
    return path, folder, own_name, version


def _check_contents(folder: Path, path: Path, root: Path | None, *, follow: bool) -> None:
    """Check what is in the model's folder, or the files that belong to a model of one file."""
    around = [path, *([root] if root else [])]
    if folder.is_dir():
        if re.fullmatch(r"[0-9]+", folder.name):
            around.append(folder.parent)
        Bounds.of((folder, *around), follow=follow).check_tree(folder)
        archives = [each for each in folder.iterdir() if is_archive(each)]
    else:
        # The operator named this file, so it may be a symlink itself.
        bounds = Bounds.of((folder.parent, *around), follow=follow)
        for name in (MANIFEST, *LABEL_FILES):
            bounds.check_file(folder.parent / name)
        archives = [folder]
    for archive in archives:
        check_archive(archive)


def find_versions(folder: Path) -> dict[int, Path]:
    """The numbered folders in `folder`, each a version; empty where it is not a folder."""
    if not folder.is_dir():
        return {}
    return {
        int(entry.name): entry
        for entry in folder.iterdir()
        if re.fullmatch(r"[0-9]{1,18}", entry.name) and entry.is_dir()
    }


def _chosen(path: Path, numbered: dict[int, Path], version: str | None) -> int:
    if version is None:
        return max(numbered)
    if not version.isdecimal() or int(version) not in numbered:
        known = ", ".join(str(number) for number in sorted(numbered))
        raise ConfigurationError(f"{path} has no version {version}; it has {known}")
    return int(version)


def _read(path: Path) -> tuple[Manifest, Path, bool]:
    """The manifest, the model's file, and whether the manifest was inferred from it."""
    if path.is_file():
        beside = path.parent / MANIFEST
        if beside.is_file():
            manifest = read_manifest(beside)
            if manifest.file in (None, path.name):
                check_format(manifest, path)
                return manifest, path, False
        return inferred_manifest(path), path, True
    if not (path / MANIFEST).is_file():
        file = file_in(path, None)
        return inferred_manifest(file), file, True
    manifest = read_manifest(path / MANIFEST)
    if manifest.framework is Framework.PYTHON:
        return manifest, path, False
    file = path / manifest.file if manifest.file else file_in(path, manifest.framework)
    if not file.exists():
        raise ConfigurationError(
            f"{path / MANIFEST} names the file {manifest.file!r}, which does not exist"
        )
    check_format(manifest, file)
    return manifest, file, False


def _weights(folder: Path, file: Path, manifest: Manifest) -> Path | None:
    """The second file of Caffe and of OpenVINO: the one that the manifest names, or the only one.

    OpenVINO's has the name of the first.
    """
    if manifest.framework is Framework.CAFFE:
        kind, found = ".caffemodel", sorted(folder.glob("*.caffemodel"))
    elif file.suffix == ".xml":
        kind, found = ".bin", [file.with_suffix(".bin")]
    else:
        return None
    if manifest.weights:
        found = [folder / manifest.weights]
    found = [each for each in found if each.is_file()]
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or manifest.weights or "none"
        raise ConfigurationError(
            f"{file} needs one {kind} beside it, or weights in {MANIFEST}; found {names}"
        )
    return found[0]


def _given(**values: object) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}
