"""What may lie in a model's folder: regular files, folders, and symlinks that stay inside.

Whoever may write into a model's folder must not make a worker read other files: a `labels.txt` that
is a symlink to a key would be given to every client. So a symlink may lead only into

- the version's folder, the model's folder and the folder that the operator named (`--models`),
- each as it is after its own symlinks, because a version's folder may be a symlink: to another
  volume, or to what git-sync or an NFS share of versions has.

So Kubernetes' ConfigMaps work, whose files are symlinks to `..data/` in the same volume. Symlinks
of single files to elsewhere (Hugging Face's cache, stores that share files) need
`--follow-symlinks`. Rejected: refusing every symlink, which breaks ConfigMaps; allowing every one
that the operator's own user made, which says nothing in a container.

Named pipes, devices and sockets are refused everywhere: reading one can wait for ever.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.basics.config_file import check_regular
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Bounds", "check_size"]

# Protocol buffers and flatbuffers, which these are, have 31-bit lengths; weights of larger models
# are apart.
_MAX_BYTES: Final = (1 << 31) - 1
_BOUNDED: Final = frozenset({".caffemodel", ".onnx", ".pb", ".prototxt", ".tflite"})


def check_size(path: Path) -> None:
    """Check that a model's file could be loaded at all: a hole of a terabyte is quickly made.

    Raises:
        ConfigurationError: it is larger than its format or this machine's memory allows.
    """
    size = path.stat().st_size if path.is_file() else 0
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise ConfigurationError(
            f"{path} has {size:,} bytes, more than the {memory:,} of this machine's memory"
        )
    if path.suffix in _BOUNDED and size > _MAX_BYTES:
        raise ConfigurationError(
            f"{path} has {size:,} bytes; a {path.suffix} file has at most {_MAX_BYTES:,}"
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where the symlinks of a model's files may lead.

    Attributes:
        folders: the folders, without symlinks in their own paths.
        follow: whether they may lead everywhere (`--follow-symlinks`).
    """

    folders: tuple[Path, ...]
    follow: bool = False

    @classmethod
    def of(cls, folders: Iterable[Path], *, follow: bool = False) -> Bounds:
        """The bounds made of existing folders."""
        return cls(tuple(folder.resolve() for folder in folders), follow)

    def check_file(self, path: Path) -> None:
        """Check one file, where it exists.

        Raises:
            ConfigurationError: a symlink that leads out, nowhere or in a circle; or not a regular
                file.
        """
        if path.is_symlink():
            self._check_link(path)
        try:
            check_regular(path, path.stat().st_mode)
        except FileNotFoundError:
            return
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error

    def check_tree(self, folder: Path) -> None:
        """Check all that is in a folder, also in the folders in it.

        Raises:
            ConfigurationError: see `check_file`; or a folder that cannot be read.
        """
        waiting, seen = [folder], set[tuple[int, int]]()
        while waiting:
            current = waiting.pop()
            try:
                state = current.stat()
                if (state.st_dev, state.st_ino) in seen:
                    continue
                seen.add((state.st_dev, state.st_ino))
                with os.scandir(current) as entries:
                    for entry in entries:
                        path = Path(entry.path)
                        if entry.is_symlink():
                            self._check_link(path)
                        mode = entry.stat().st_mode
                        if stat.S_ISDIR(mode):
                            waiting.append(path)
                        else:
                            check_regular(path, mode)
            except OSError as error:
                raise ConfigurationError(
                    f"{error.filename or current} cannot be read: {error.strerror}"
                ) from error

    def _check_link(self, path: Path) -> None:
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a circle, before Python 3.13
            raise ConfigurationError(
                f"{path} is a symlink to {path.readlink()}, which leads nowhere"
            ) from error
        if not self.follow and not any(target.is_relative_to(each) for each in self.folders):
            raise ConfigurationError(
                f"{path} is a symlink to {target}, outside of the model's folder "
                f"{self.folders[0]}: copy the file there, or allow it with --follow-symlinks"
            )
