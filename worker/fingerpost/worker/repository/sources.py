"""Where models stand on disk: one that never changes, one model's versions, or many models.

::

    models/                  many: ModelRoot
      flowers/               one: ModelFolder
        versions.toml        policy and aliases (see `policy`); may be missing
        3/                   a version, as `modelfiles` reads it
        4.partial/           passed over, as is every name that is no number

A version is best copied under another name and renamed: then it appears whole. One that is copied
in place is loaded once its files (names, sizes, times) stayed the same for one look. A version's
files never change afterwards: publish another number.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fingerpost.errors import ConfigurationError, InvalidName
from fingerpost.registry.names import check_service
from fingerpost.worker.models.files import find_model, find_versions
from fingerpost.worker.repository.policy import (
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

# Files of one version that are looked at; a model has some ten.
_MAX_FILES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModel:
    """What a look at a model's folder found.

    Attributes:
        versions: each version's fingerprint: another one after any change of its files.
        settings: its `versions.toml`; None where that cannot be read.
        error: why not.
    """

    versions: dict[int, str]
    settings: VersionSettings | None
    error: str = ""


class ModelSource(Protocol):
    """All methods block, and are called in threads."""

    @property
    def single_model(self) -> bool:
        """It has one model, and is nothing without it."""
        ...

    def scan(self) -> dict[str, FoundModel]:
        """The models that are there now, by name.

        Raises:
            ConfigurationError: they cannot be looked at now, which does not mean that they are
                gone.
        """
        ...

    def files(self, model: str, version: int) -> ModelFiles:
        """A version's files, to be loaded. Raises `ConfigurationError`."""
        ...

    def fingerprint(self, model: str, version: int) -> str:
        """A version's fingerprint now. Raises `ConfigurationError`."""
        ...


class FixedModel:
    """One version of one model, as it was found when the worker started."""

    single_model = True

    def __init__(self, files: ModelFiles) -> None:
        self._files = files

    def scan(self) -> dict[str, FoundModel]:
        """Always the same."""
        versions = {int(self._files.version): ""}
        settings = VersionSettings(policy=VersionPolicy())
        return {self._files.name: FoundModel(versions=versions, settings=settings)}

    def files(self, model: str, version: int) -> ModelFiles:
        """The files."""
        return self._files

    def fingerprint(self, model: str, version: int) -> str:
        """Always the same."""
        return ""


class ModelFolder:
    """`models/NAME`: one model's versions.

    Args:
        folder: the model's.
        name: the model's name; by default the folder's.
        policy: where its `versions.toml` names none.
        find: makes a version's `ModelFiles` from its folder.

    Raises:
        ConfigurationError: the folder's name cannot name a model.
    """

    single_model = True

    def __init__(
        self,
        folder: Path,
        *,
        name: str | None = None,
        policy: VersionPolicy,
        find: Callable[..., ModelFiles] = find_model,
    ) -> None:
        self._folder = folder
        try:
            self.name = check_service(name or folder.resolve().name)
        except InvalidName as error:
            raise ConfigurationError(f"{error}; choose one with --name") from error
        self._policy = policy
        self._find = find

    def scan(self) -> dict[str, FoundModel]:
        """The one."""
        try:
            return {self.name: self.found()}
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be read: {error}") from error

    def found(self) -> FoundModel:
        """What its folder holds. Raises `OSError`."""
        versions = {
            number: files
            for number, path in _versions(self._folder).items()
            if (files := _fingerprint(path))
        }
        try:
            path = self._folder / SETTINGS_FILE
            settings = parse_settings(_text(path), self._policy, str(path))
        except ConfigurationError as error:
            return FoundModel(versions=versions, settings=None, error=error.message)
        return FoundModel(versions=versions, settings=settings)

    def files(self, model: str, version: int) -> ModelFiles:
        """See `ModelSource.files`."""
        return self._find(self._path(version), name=self.name, version=str(version))

    def fingerprint(self, model: str, version: int) -> str:
        """See `ModelSource.fingerprint`."""
        try:
            return _fingerprint(self._path(version))
        except OSError as error:
            raise ConfigurationError(f"{self._folder}/{version} cannot be read: {error}") from error

    def _path(self, version: int) -> Path:
        path = _versions(self._folder).get(version)
        if path is None:
            raise ConfigurationError(f"{self._folder} has no version {version} any more")
        return path


class ModelRoot:
    """`models`: every folder in it with a model's name is a model.

    A folder in which nothing at all is found any more is not believed: a volume that is not
    mounted looks like that.

    Args:
        folder: the repository.
        only: the models to serve; all, where it is empty.
        policy: where a model's `versions.toml` names none.
        find: makes a version's `ModelFiles` from its folder.
    """

    single_model = False

    def __init__(
        self,
        folder: Path,
        *,
        only: Collection[str] = (),
        policy: VersionPolicy,
        find: Callable[..., ModelFiles] = find_model,
    ) -> None:
        self._folder = folder
        self._only = frozenset(only)
        self._policy = policy
        self._find = find
        self._models: dict[str, ModelFolder] = {}
        self._passed_over: set[str] = set()
        self._first = True

    def scan(self) -> dict[str, FoundModel]:
        """All of them."""
        found = {}
        try:
            for path in sorted(self._folder.iterdir()):
                if self._is_model(path):
                    found[path.name] = self._model(path.name).found()
        except OSError as error:
            raise ConfigurationError(f"{self._folder} cannot be read: {error}") from error
        missing = sorted(self._only - found.keys())
        if missing and self._first:
            raise ConfigurationError(f"{self._folder} has no model {', '.join(missing)}")
        if not found:
            raise ConfigurationError(
                f"{self._folder} holds no model: expected folders NAME/VERSION, such as flowers/1"
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
                self._folder / name, policy=self._policy, find=self._find
            )
        return self._models[name]

    def _is_model(self, path: Path) -> bool:
        if self._only and path.name not in self._only:
            return False
        try:
            check_service(path.name)
        except InvalidName as error:
            if path.name[0] != "." and path.is_dir() and path.name not in self._passed_over:
                self._passed_over.add(path.name)
                logger.warning("%s is passed over: %s", path, error)
            return False
        return path.is_dir()


def _versions(folder: Path) -> dict[int, Path]:
    folder.stat()  # one that is gone, or may not be read, is an error and not an empty one
    return find_versions(folder)


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _fingerprint(folder: Path) -> str:
    """Of all files' names, sizes and times; empty where there is none."""
    seen = hashlib.blake2b(digest_size=16)
    files = 0
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(root, name)  # noqa: PTH118 - every second, for every file
            try:
                stat = os.stat(path)  # noqa: PTH116
            except FileNotFoundError:
                continue
            seen.update(f"{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
            files += 1
            if files > _MAX_FILES:
                raise OSError(f"{folder} has over {_MAX_FILES} files")
    return seen.hexdigest() if files else ""
