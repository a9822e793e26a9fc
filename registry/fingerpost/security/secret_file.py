"""Files that are written in one step, and private ones that nobody else may read."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_folder", "others_may_read", "read_file", "warn_if_public", "write_file"]

logger = logging.getLogger(__name__)


def write_file(
    path: Path,
    content: bytes,
    *,
    mode: int,
    replace: bool = False,
    like: os.stat_result | None = None,
) -> None:
    """Write a file so that a reader sees either all of it or what was there before.

    Args:
        path: the file; its folder exists.
        content: all of it.
        mode: the permission bits, which it has from the beginning: 0o600 for a key.
        replace: whether a file of that name is replaced; otherwise it is an error.
        like: the owner and the permission bits of the file that is replaced, which stay as they
            are; the owner only as far as this process may give files away.

    Raises:
        ConfigurationError: it exists, or cannot be written.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(beside, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            if like is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), like.st_uid, like.st_gid)
                os.fchmod(file.fileno(), like.st_mode & 0o777)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or the new name may be an empty file after a power failure
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)  # in contrast to a rename, it fails where there is a file
            beside.unlink()
    except FileExistsError as error:
        raise ConfigurationError(
            f"{path} exists and is not overwritten: remove it, or use another folder"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder of its owner alone, unless it exists.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        why = "a file has this name" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigurationError(f"the folder {folder} cannot be made: {why}") from error


def others_may_read(state: os.stat_result, own_uid: int) -> bool:
    """Whether others than a process and root can read or change a file.

    A group may read root's file: so Kubernetes hands a Secret to a container that is not root, by
    its `fsGroup`. PostgreSQL takes its TLS key by the same rule.
    """
    if own_uid != 0 and state.st_uid == 0:
        return bool(state.st_mode & 0o037)
    return bool(state.st_mode & 0o077)


def warn_if_public(path: Path, what: str) -> None:
    """Say that everybody on this machine can read a secret, which is not refused.

    Secrets that a container gets are often mounted so (mode 0644 in Kubernetes).
    """
    with contextlib.suppress(OSError):
        mode = path.stat().st_mode & 0o777
        if mode & 0o004:
            logger.warning(
                "everybody on this machine can read %s, %s (mode %04o): run `chmod o-r %s`, or "
                "mount it with another mode", what, path, mode, path,
            )  # fmt: skip


def read_file(path: Path, what: str, *, private: bool = False, most: int = 65_536) -> bytes:
    """The content of a small file.

    Args:
        path: the file.
        what: names it in errors, such as `the key of the authority`.
        private: whether it must be readable by its owner alone.
        most: the most bytes that it may have.

    Raises:
        ConfigurationError: it is missing, too large, or readable by others though private.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{what}, {path}, cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise ConfigurationError(f"{what}, {path}, has more than {most:,} bytes")
    if private and others_may_read(state, os.geteuid()):
        raise ConfigurationError(
            f"{what}, {path}, can be read by others (mode {state.st_mode & 0o777:04o}): "
            f"run `chmod 600 {path}`; whoever read it before can use it"
        )
    return content
