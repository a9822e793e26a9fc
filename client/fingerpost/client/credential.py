"""What a client shows to proxies: an API key or a token, never shown to anybody else."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.credentials import Token

if TYPE_CHECKING:
    from collections.abc import Iterable

    from yarl import URL

__all__ = ["Credential", "Secret"]

logger = logging.getLogger(__name__)

# Proxies of which this process has said that a credential goes to them in clear.
_WARNED: Final[set[str]] = set()


class Secret(str):
    """A text whose representation does not show it, for arguments that are kept."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "***"


class Credential:
    """An API key or a token. It is in no message, and its representation does not show it.

    It is sent to the proxies that the client was given, and to nobody else: no redirect is
    followed, and workers get none.

    Args:
        value: the key or token itself.
        file: a file that holds it and nothing else; it is read again when it changes, as a
            projected token of Kubernetes does every hour.

    Raises:
        ConfigurationError: it is not a valid value of an HTTP header, or the file cannot be read.
    """

    def __init__(self, value: str | None = None, file: str | None = None) -> None:
        self._token = Token(value, file, what="API key or token")
        self._sent = ""
        self._field = ""

    def __repr__(self) -> str:
        return "Credential(***)"

    @classmethod
    def of(
        cls, *, api_key: str | None, token: str | None, token_file: str | None
    ) -> Credential | None:
        """The credential that a caller names, if any.

        Raises:
            ConfigurationError: several are named, or the one is not valid.
        """
        given = {"api_key": api_key, "token": token, "token_file": token_file}
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise ConfigurationError(f"{' and '.join(named)} exclude each other: give one")
        if not named:
            return None
        for name in ("api_key", "token"):
            if given[name] is not None and not isinstance(given[name], str):
                raise ConfigurationError(f"{name} must be a str")
        return cls(api_key if token is None else token, token_file)

    def header(self) -> str:
        """The value of `Authorization` for the next request."""
        current = self._token.current() or ""
        if current != self._sent:
            self._sent, self._field = current, f"Bearer {current}"
        return self._field

    def warn_in_clear(self, proxies: Iterable[URL]) -> None:
        """Log it where a credential goes over a network without TLS; once for each proxy.

        A warning, where gRPC and kubectl refuse: within a network that is encrypted otherwise (a
        mesh, WireGuard) plain HTTP is right, and the client cannot see that.
        """
        open_ = [str(each) for each in proxies if each.scheme == "http" and not _is_local(each)]
        open_ = [each for each in open_ if each not in _WARNED]
        if open_:
            _WARNED.update(open_)
            logger.warning(
                "the API key or token is sent to %s without TLS: whoever is on the way can read "
                "it; use https://",
                ", ".join(open_)[:300],
            )


def _is_local(url: URL) -> bool:
    host = url.host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
