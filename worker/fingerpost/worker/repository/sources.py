"""Where models are on disk: one that never changes, one model's versions, or many models.

::

    models/                  many models: ModelRoot
      flowers/               one model: ModelFolder
        versions.toml        policy and aliases (see `policy`); may be missing
        3/                   a version, as `find_model` reads it
        4.partial/           ignored, as is every name that is not a number

Copy a version under another name and rename it, so that it appears complete. A version that is
copied in place is loaded once two scans in a row found the same files (names, sizes, times). Of a
loaded version only the labels are read again when its files change, since they may come after the
model. Do not change the model's own files: publish another number.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service
from fingerpost.worker.models.contents import Bounds
from fingerpost.worker.models.files import find_model, find_versions
from fingerpost.worker.repository.versions.policy import (
    SETTINGS_FILE,
    VersionPolicy,
    VersionSettings,
    parse_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fingerpost.worker.models.files import ModelFiles

__all__ = ["FixedModel", "FoundModel", "ModelFolder", "ModelRoot", "ModelSource"]

logger = logging.getLogger(__name__)

# Most files in one version; a model has some ten.
_MAX_FILES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """What a scan of a model's folder found.

    Attributes:
        versions: the fingerprint of each version, which changes with any of its files.
        settings: its `versions.toml`; None where that cannot be read.
        error: why it cannot be read.
    """

    versions: dict[int, str]
    settings: VersionSettings | None
    error: str = ""


class ModelSource(Protocol):
    """Where models are found. All methods block, and are called in threads."""

    @property
    def single_model(self) -> bool:
        """Whether the source is for one model only."""
        ...

    @property
    def place(self) -> Path | None:
        """A folder on the disk of the models; None where they are on none."""
        ...

    def scan(self) -> dict[str, FoundModel]:
        """The models that exist now, by name.

        Raises:
            ConfigurationError: the scan failed, which does not mean that the models are gone.
        """
        ...

    def files(self, model: str, version: int) -> ModelFiles:
        """The files of a version, for loading. Raises `ConfigurationError`."""
        ...

    def fingerprint(self, model: str, version: int) -> str:
        """The current fingerprint of a version. Raises `ConfigurationError`."""
        ...


class FixedModel:
    """One version of one model, as it was found when the worker started.

    Args:
        files: the model.
        find: finds it again, when its labels files have changed; None for one that never changes.
    """

    single_model = True

    def __init__(self, files: ModelFiles, find: Callable[[], ModelFiles] | None = None) -> None:
        self.place = files.folder
        self._files = files
        self._find = find
        self._seen = ""

    def scan(self) -> dict[str, FoundModel]:
        """The version; its fingerprint changes with its labels files only."""
        if self._find is not None:
            self._seen = _hash(_states(map(str, self._files.labels_files)))
        versions = {int(self._files.version): self._seen}
        settings = VersionSettings(policy=VersionPolicy())
        return {self._files.name: FoundModel(versions=versions, settings=settings)}

    def files(self, model: str, version: int) -> ModelFiles:
        """See `ModelSource.files`."""
        return self._files if self._find is None else self._find()

    def fingerprint(self, model: str, version: int) -> str:
        """See `ModelSource.fingerprint`; that of the last scan."""
        return self._seen


class ModelFolder:
    """`models/NAME`: one model's versions.

    Args:
        folder: the model's folder.
        name: the model's name; by default the folder's.
        policy: applies where its `versions.toml` names none.
        find: makes a version's `ModelFiles` from its folder.
        labels: a labels file elsewhere, which all versions have.
        root: a folder around it into which the symlink of a `versions.toml` may lead.
        follow_symlinks: whether that may lead everywhere, see `contents`.

    Raises:
        ConfigurationError: the folder's name is not a valid name for a model.
    """

    single_model = True

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        policy: VersionPolicy,
        find: Callable[..., ModelFiles] = find_model,
        labels: Path | None = None,
        root: Path | None = None,
        follow_symlinks: bool = False,
    ) -> None:
        self.place = self._folder = folder
        self._around = (folder, *([root] if root else []))
        self._follow_symlinks = follow_symlinks
        self._seen: dict[int, str] = {}
        try:
            self.name = check_service(name or folder.resolve().name)
        except InvalidName as error:
            raise ConfigurationError(f"{error}; choose one with --name") from error
        self._policy = policy
        self._find = find if labels is None else partial(find, labels=labels)
        self._outside = () if labels is None else (str(labels),)

    def scan(self) -> dict[str, FoundModel]:
        """The model, by its name; see `ModelSource.scan`."""
        try:
            return {self.name: self.found()}
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be read: {error}") from error

    def found(self) -> FoundModel:
        """The versions and the settings in its folder. Raises `OSError`."""
        self._seen = {
            number: files
            for number, path in _versions(self._folder).items()
            if (files := _fingerprint(path, self._outside))
        }
        path = self._folder / SETTINGS_FILE
        try:
            Bounds.of(self._around, follow=self._follow_symlinks).check_file(path)
            settings = parse_settings(_content(path), self._policy, str(path))
        except ConfigurationError as error:
            return FoundModel(versions=self._seen, settings=None, error=error.message)
        return FoundModel(versions=self._seen, settings=settings)

    def unreadable(self, error: OSError) -> FoundModel:
        """What the last scan found, and why this one failed: an error is not an empty folder."""
        why = f"{self._folder} cannot be read: {error}"
        return FoundModel(versions=self._seen, settings=None, error=why)

    def files(self, model: str, version: int) -> ModelFiles:
        """See `ModelSource.files`."""
        return self._find(self._path(version), name=self.name, version=str(version))

    def fingerprint(self, model: str, version: int) -> str:
        """See `ModelSource.fingerprint`."""
        try:
            return _fingerprint(self._path(version), self._outside)
        except OSError as error:
            raise ConfigurationError(f"{self._folder}/{version} cannot be read: {error}") from error

    def _path(self, version: int) -> Path:
        path = _versions(self._folder).get(version)
        if path is None:
            raise ConfigurationError(f"{self._folder} has no version {version} any more")
        return path


class ModelRoot:
    """`models`: every folder in it whose name is valid for a model is a model.

    A scan that finds no model at all is an error, and not a list of removed models: a volume that
    is not mounted looks like that.

    Args:
        folder: the folder of the models.
        only: the models to serve; empty is all.
        policy: applies where a model's `versions.toml` names none.
        find: makes a version's `ModelFiles` from its folder.
        follow_symlinks: whether symlinks of the models' files may lead out of `folder`.
    """

    single_model = False

    def __init__(
        self,
        folder: Path,
        *,
        only: Collection[str] = (),
        policy: VersionPolicy,
        find: Callable[..., ModelFiles] = find_model,
        follow_symlinks: bool = False,
    ) -> None:
        self.place = self._folder = folder
        self._only = frozenset(only)
        self._policy = policy
        self._follow_symlinks = follow_symlinks
        self._find = partial(find, root=folder, follow_symlinks=follow_symlinks)
        self._models: dict[str, ModelFolder] = {}
        self._ignored: set[str] = set()
        self._first = True

    def scan(self) -> dict[str, FoundModel]:
        """See `ModelSource.scan`."""
        found = {}
        try:
            models = [path for path in sorted(self._folder.iterdir()) if self._is_model(path)]
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be read: {error}") from error
        if self._first and models and all(map(_is_version, models)):
            raise ConfigurationError(
                f"{self._folder} is the folder of one model, with its versions: give it as "
                "--model, or the folder in which it is as --models"
            )
        for path in models:
            model = self._model(path.name)
            try:
                found[path.name] = model.found()
            except FileNotFoundError:
                continue  # removed since
            except OSError as error:  # of one model: the others are scanned
                found[path.name] = model.unreadable(error)
        missing = sorted(self._only - found.keys())
        if missing and self._first:
            raise ConfigurationError(f"{self._folder} has no model {', '.join(missing)}")
        if not found:
            raise ConfigurationError(
                f"{self._folder} has no models: expected folders NAME/VERSION, such as flowers/1"
            )
        self._first = False
        return found

    def files(self, model: str, version: int) -> ModelFiles:
        """See `ModelSource.files`."""
        return self._model(model).files(model, version)

    def fingerprint(self, model: str, version: int) -> str:
        """See `ModelSource.fingerprint`."""
        return self._model(model).fingerprint(model, version)

    def _model(self, name: str) -> ModelFolder:
        if name not in self._models:
            self._models[name] = ModelFolder(
                self._folder / name,
                policy=self._policy,
                find=self._find,
                root=self._folder,
                follow_symlinks=self._follow_symlinks,
            )
        return self._models[name]

    def _is_model(self, path: Path) -> bool:
        if self._only and path.name not in self._only:
            return False
        try:
            check_service(path.name)
        except InvalidName as error:
            if path.name[0] != "." and path.is_dir() and path.name not in self._ignored:
                self._ignored.add(path.name)
                logger.warning("%s is ignored: %s", path, error)
            return False
        return path.is_dir()


def _is_version(folder: Path) -> bool:
    """Whether a folder is a version of a model, and not a model whose name is a number."""
    try:
        return folder.name.isdecimal() and not find_versions(folder)
    except OSError:
        return False


def _versions(folder: Path) -> dict[int, Path]:
    folder.stat()  # a folder that is gone, or cannot be read, is an error and not an empty folder
    return find_versions(folder)


def _content(path: Path) -> bytes:
    try:
        return read_config(path)
    except FileNotFoundError:
        return b""


def _fingerprint(folder: Path, outside: Iterable[str] = ()) -> str:
    """A hash of all files' names, sizes and times; empty where there are none.

    A file that cannot be looked at counts with its error: loading the version says what it is.

    Args:
        folder: the version.
        outside: files elsewhere that belong to it.
    """
    found: list[str] = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += _states(os.path.join(root, name) for name in sorted(names))  # noqa: PTH118
        if len(found) > _MAX_FILES:
            raise OSError(f"{folder} has over {_MAX_FILES:,} files")
    return _hash([*found, *_states(outside)]) if found else ""


def _states(paths: Iterable[str]) -> Iterator[str]:
    """The name, size and time of each file that exists; plain strings, for it is done often."""
    for path in paths:
        try:
            stat = os.stat(path)  # noqa: PTH116
            state = f"{stat.st_size}\0{stat.st_mtime_ns}"
        except FileNotFoundError:
            if not os.path.islink(path):  # noqa: PTH114
                continue
            state = "a symlink that leads nowhere"
        except OSError as error:
            state = str(error.errno)
        yield f"{path}\0{state}\0"


def _hash(states: Iterable[str]) -> str:
    seen = hashlib.blake2b(digest_size=16)
    for state in states:
        seen.update(state.encode("utf-8", "surrogateescape"))
    return seen.hexdigest()
