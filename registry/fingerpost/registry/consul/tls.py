"""TLS for connections to a registry: trusted authorities and the client certificate."""

from __future__ import annotations

import contextlib
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fingerpost.basics.config_file import read_config
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry.config import RegistryConfig

__all__ = ["Tls", "make_context"]

logger = logging.getLogger(__name__)

# The largest bundles of authorities have some 300 KB.
_MAX_BYTES: Final = 16_000_000
_FILES: Final = ("ca_file", "cert_file", "key_file")


class Tls:
    """The context of `make_context`, made again when its files change.

    The files' state is read before each call (one `stat` each). While they are not valid, as
    between the writing of a certificate and of its key, the last good context stays in use.

    Raises:
        ConfigurationError: as `make_context`.
    """

    def __init__(self, registry_config: RegistryConfig) -> None:
        self._registry_config = registry_config
        self._seen = self._state()  # first: a write after it is seen at the next call
        self._context = make_context(registry_config)

    def current(self) -> ssl.SSLContext:
        """The context for a new connection."""
        if (state := self._state()) != self._seen:
            self._seen = state
            try:
                self._context = make_context(self._registry_config)
                logger.info("the certificates for the registry were read again")
            except (ConfigurationError, OSError) as error:
                logger.warning("%s; the last certificates stay in use", error)
        return self._context

    def _state(self) -> list[tuple[int, int, int]]:
        """Values that change with the files; ctime also changes when a file becomes readable."""
        found = []
        for name in filter(None, (getattr(self._registry_config, field) for field in _FILES)):
            with contextlib.suppress(OSError):
                stat = Path(name).stat()
                found.append((stat.st_ctime_ns, stat.st_ino, stat.st_size))
        return found


def make_context(registry_config: RegistryConfig) -> ssl.SSLContext:
    """A client's context of TLS 1.2 or later, as configured. Reads the files that are named there.

    Raises:
        ConfigurationError: a file is missing, cannot be read, or is not valid; it is named.
    """
    for field in _FILES:
        name = getattr(registry_config, field)
        if name is not None:
            _check_readable(field, name)
    try:
        context = ssl.create_default_context(cafile=registry_config.ca_file)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"ca_file {registry_config.ca_file!r} does not hold a PEM certificate: "
            f"{error.reason or error}"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not registry_config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if registry_config.cert_file is not None:
        try:
            # With an empty pass phrase, or OpenSSL would ask for one on the terminal.
            context.load_cert_chain(
                registry_config.cert_file, registry_config.key_file, password=""
            )
        except ssl.SSLError as error:
            raise ConfigurationError(
                f"cert_file {registry_config.cert_file!r} and key_file "
                f"{registry_config.key_file!r} do not hold a PEM certificate and its private key "
                f"without a pass phrase: {error.reason or error}"
            ) from error
    return context


def _check_readable(field: str, name: str) -> None:
    try:
        read_config(Path(name), most=_MAX_BYTES)
    except OSError as error:
        raise ConfigurationError(f"{field} {name!r} cannot be read: {error.strerror}") from error
