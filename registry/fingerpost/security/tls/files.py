"""PEM files that are read when a process starts, and again when they change."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from fingerpost.errors import ConfigurationError

__all__ = ["ChangingFiles", "load_authorities", "load_pair"]

# The largest bundles of authorities have some 300 KB.
_MAX_BYTES: Final = 16_000_000
# A look at the files costs some microseconds; new connections may come by the thousand.
_LOOK_EVERY_S: Final = 0.5


class ChangingFiles:
    """Says when one of some files has changed; looks at most twice a second."""

    def __init__(
        self, names: Iterable[str | None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._names = tuple(filter(None, names))
        self._clock = clock
        self._next_at = clock() + _LOOK_EVERY_S
        self._seen = self._state()

    def changed(self) -> bool:
        """Whether they have changed since the last call that returned True, or the start."""
        if not self._names or (now := self._clock()) < self._next_at:
            return False
        self._next_at = now + _LOOK_EVERY_S
        state = self._state()
        if state == self._seen:
            return False
        self._seen = state
        return True

    def _state(self) -> list[tuple[int, int, int]]:
        """Values that change with the files; ctime also changes when a file becomes readable."""
        found = []
        for name in self._names:
            with contextlib.suppress(OSError):
                stat = Path(name).stat()
                found.append((stat.st_ctime_ns, stat.st_ino, stat.st_size))
        return found


def load_authorities(context: ssl.SSLContext, name: str, what: str) -> None:
    """Trust the certificates of a file; `what` names it in errors.

    Raises:
        ConfigurationError: it cannot be read, or holds no PEM certificate.
    """
    _check_readable(what, name)
    try:
        context.load_verify_locations(cafile=name)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(
            f"{what} {name!r} does not hold PEM certificates: {_reason(error)}"
        ) from error


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Show this certificate from now on.

    Raises:
        ConfigurationError: a file cannot be read, is not valid, or the key is another one's.
    """
    _check_readable("TLS certificate", cert)
    _check_readable("TLS key", key)
    try:
        # With an empty pass phrase, or OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (ssl.SSLError, OSError) as error:
        reason = _reason(error)
        if "KEY_VALUES_MISMATCH" in reason:
            raise ConfigurationError(
                f"TLS key {key!r} is not that of the certificate {cert!r}: give the key with which "
                "it was issued"
            ) from error
        raise ConfigurationError(
            f"TLS certificate {cert!r} and key {key!r} are not a PEM certificate and its private "
            f"key without a pass phrase: {reason}"
        ) from error


def _check_readable(what: str, name: str) -> None:
    path = Path(name)
    try:
        if not path.is_file():
            path.stat()  # the reason why, where it is missing
            raise ConfigurationError(f"{what} {name!r} is not a file: name a PEM file")
        with path.open("rb") as file:
            if len(file.read(_MAX_BYTES + 1)) > _MAX_BYTES:
                raise ConfigurationError(f"{what} {name!r} is too large for a PEM file")
    except OSError as error:
        raise ConfigurationError(
            f"{what} {name!r} cannot be read: {error.strerror}; name a file that this user may read"
        ) from error


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or str(error)
