"""Files that are written in one step, and private ones that nobody else may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_file", "write_file"]


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
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{what}, {path}, cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise ConfigurationError(f"{what}, {path}, has more than {most:,} bytes")
    if private and mode & 0o077:
        raise ConfigurationError(
            f"{what}, {path}, can be read by others (mode {mode & 0o777:04o}): "
            f"run `chmod 600 {path}`; whoever read it before can use it"
        )
    return content
