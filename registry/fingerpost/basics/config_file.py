"""Reads small files that people write: settings, labels, tokens, manifests.

Whatever stands under such a name, reading it ends at once and takes bounded memory: a named pipe or
a device is refused without waiting for what it might send, a huge file without reading it, and text
that is not UTF-8 with the place of the first wrong byte. Every error is a `ConfigurationError` that
names the file, so that one bad file is the problem of what it describes, and of nothing else.
"""

from __future__ import annotations

import codecs
import os
import stat
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_regular", "decode_text", "decode_toml", "read_config", "read_text"]

T = TypeVar("T")

# Settings and tokens are some hundred bytes, manifests some thousand.
MAX_BYTES: Final = 1_000_000

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def check_regular(path: Path, mode: int) -> None:
    """Check that a file's `st_mode` is that of a regular file; else raise `ConfigurationError`."""
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a special file")
        raise ConfigurationError(
            f"{path} is {kind}, not a regular file: put a file there, or remove it"
        )


def read_config(path: Path, *, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ConfigurationError: it is not a regular file, too large, or cannot be read.
    """
    try:
        # Looked at before it is opened too: opening some devices does something.
        check_regular(path, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor
            state = os.fstat(descriptor)
            check_regular(path, state.st_mode)
            _check_size(path, state.st_size, most)
            content = bytearray()
            while piece := file.read(min(most + 1 - len(content), 1 << 20)):
                content += piece
            _check_size(path, len(content), most)  # it may grow meanwhile
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    return bytes(content)


def read_text(path: Path, *, most: int = MAX_BYTES) -> str:
    """As `read_config`, decoded as UTF-8; a byte order mark at the begin is left out."""
    return decode_text(read_config(path, most=most), path)


def decode_text(content: bytes, source: object) -> str:
    """The text of UTF-8 bytes, without a byte order mark.

    Args:
        content: the bytes of a file.
        source: the file's path, for the error.

    Raises:
        ConfigurationError: it is not UTF-8; the message has the offset of the first wrong byte.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        at = error.start + len(content) - len(text)
        line = content.count(b"\n", 0, at) + 1
        raise ConfigurationError(
            f"{source} is not UTF-8 text: byte 0x{content[at]:02x} at offset {at:,}, in line "
            f"{line:,}; save it as UTF-8"
        ) from error


def decode_toml(content: bytes, kind: type[T], source: object) -> T:
    """Read a TOML document into a struct.

    Args:
        content: the bytes of a file.
        kind: the struct's class.
        source: the file's path, for the error.

    Raises:
        ConfigurationError: not UTF-8, not TOML, nested too deep, an unknown key, or a value that
            is not valid.
    """
    text = decode_text(content, source)
    try:
        return msgspec.toml.decode(text, type=kind)
    except RecursionError:
        raise ConfigurationError(f"{source}: its values are nested too deep") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigurationError(f"{source}: {error}") from error


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ConfigurationError(f"{path} has {size:,} bytes, over the limit of {most:,}")
