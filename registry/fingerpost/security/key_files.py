"""Keys in files: private ones that nobody else may read, public ones that are read again."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.security.keys import PublicKeys, SigningKey
from fingerpost.security.secret_file import others_may_read, write_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "PublicKeysFile",
    "SigningKeyFile",
    "load_public_keys",
    "load_signing_key",
    "save_public_keys",
    "save_signing_key",
]

logger = logging.getLogger(__name__)

_MAX_BYTES: Final = 65_536
_State = tuple[int, int, int]


def load_signing_key(path: Path) -> SigningKey:
    """The private key in a file.

    Raises:
        ConfigurationError: the file is missing, not a regular one, can be read by others than its
            owner, or does not hold a key.
    """
    content, state = _read(path)
    if others_may_read(state, os.geteuid()):
        mode = stat.S_IMODE(state.st_mode)
        raise ConfigurationError(
            f"others may read or change the private key {path} (mode {mode:04o}): run "
            f"`chmod 600 {path}`, and if somebody else has used this machine, make another key"
        )
    return SigningKey.decode(content, path)


def save_signing_key(key: SigningKey, path: Path, *, replace: bool = False) -> None:
    """Write a private key, mode 0600, at once or not at all.

    Raises:
        ConfigurationError: the file cannot be written; or it exists, and `replace` is not set.
    """
    if not replace and path.exists():
        raise ConfigurationError(
            f"{path} exists: a key is not overwritten; remove it, or run `fingerpost keys rotate`"
        )
    write_file(path, key.encode(), mode=0o600, replace=replace)


def load_public_keys(path: Path) -> PublicKeys:
    """The public keys in a file (JWKS).

    Raises:
        ConfigurationError: the file is missing, or does not hold at least one public key.
    """
    keys = PublicKeys.decode(_read(path)[0], path)
    if not len(keys):
        raise ConfigurationError(f"{path} holds no public key: `fingerpost keys show` prints some")
    return keys


def save_public_keys(keys: PublicKeys, path: Path) -> None:
    """Write public keys, mode 0644, at once or not at all.

    Raises:
        ConfigurationError: the file cannot be written, or limits a key to services by hand
            (`signing.trusted_keys`), which would be lost: the key could then sign for all.
    """
    if path.exists() and b'"services"' in _read(path)[0]:
        raise ConfigurationError(
            f"{path} limits keys to services, which would be lost: change this file by hand; "
            "`fingerpost keys show --key FILE` prints a public key"
        )
    write_file(path, keys.encode(), mode=0o644, replace=True)


class _ReadAgain:
    """A file that is read again when it was replaced or written to.

    `changed` costs one `stat`. While the file is missing or not valid, as in the middle of being
    written, what was read last stays in use, and one line in the log says so.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen = _state(path)
        self._in_trouble = False

    def _refresh(self) -> bool:
        """Whether the content was read again, and is another one."""
        try:
            state = _state(self.path)
            if state == self._seen:
                return False
            self._load()
        except ConfigurationError as error:
            if not self._in_trouble:
                logger.warning("%s; the keys read before stay in use", error)
            self._in_trouble = True
            return False
        self._seen = state
        self._in_trouble = False
        logger.info("the keys were read again from %s", self.path)
        return True

    def _load(self) -> None:
        raise NotImplementedError


class SigningKeyFile(_ReadAgain):
    """A private key whose file may be replaced at any time. Raises `ConfigurationError`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._load()

    def current(self) -> SigningKey:
        """The key to sign with now; reads the file if it changed."""
        self._refresh()
        return self._key

    def _load(self) -> None:
        self._key = load_signing_key(self.path)


class PublicKeysFile(_ReadAgain):
    """Public keys whose file may be replaced at any time. Raises `ConfigurationError`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._load()

    def current(self) -> PublicKeys:
        """The keys to verify with now; reads the file if it changed."""
        self._refresh()
        return self._keys

    def _load(self) -> None:
        self._keys = load_public_keys(self.path)


def _state(path: Path) -> _State:
    try:
        state = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return state.st_ctime_ns, state.st_ino, state.st_size


def _read(path: Path) -> tuple[bytes, os.stat_result]:
    """The content and the state of a regular file; a pipe or device is not opened."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"{path} is not a regular file: put a key file there")
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
            state = os.fstat(descriptor)
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"{path} has over {_MAX_BYTES:,} bytes: it is not a key file")
    return content, state


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the key file {path} cannot be read: {error.strerror}; "
        "`fingerpost keys init` makes a first key"
    )
