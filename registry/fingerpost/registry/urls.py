"""A registry from its URL, as given on a command line."""

from __future__ import annotations

import re
import urllib.parse
from typing import TYPE_CHECKING, Final

from fingerpost.registry.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.registry.base import Registry

__all__ = ["open_registry", "parse_base_url"]

_DEFAULT_PORTS: Final = {"http": 8500, "https": 8501}
_CONSUL: Final = {
    "http": "http",
    "https": "https",
    "consul": "http",
    "consul+http": "http",
    "consul+https": "https",
}


def open_registry(url: str, *, token: str | None = None) -> Registry:
    """The registry at `url`; no I/O happens until it is used.

    `consul://HOST:PORT` or `http://HOST:PORT` is a Consul agent or the embedded registry;
    `consul+https://` or `https://` the same with TLS. `token` is the ACL token.

    Raises:
        ConfigurationError: another scheme, or no such URL.
    """
    scheme, separator, rest = url.partition("://")
    transport = _CONSUL.get(scheme.lower())
    if not separator or transport is None:
        raise ConfigurationError(
            f"registry URL {_masked(url)!r}: expected consul://HOST:PORT, "
            "consul+https://HOST:PORT, http://HOST:PORT or https://HOST:PORT"
        )
    # Imported here because aiohttp takes longer to import than all else in this room.
    from fingerpost.registry.consul import ConsulRegistry

    return ConsulRegistry(f"{transport}://{rest}", token=token)


def parse_base_url(url: str) -> str:
    """Check `http(s)://HOST[:PORT]`; return it with its port and no trailing slash.

    Raises:
        ConfigurationError: another scheme, no host, a path, a query, or a user name.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"registry URL {_masked(url)!r}: {error}") from error
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or not host or extras:
        raise ConfigurationError(
            f"registry URL {_masked(url)!r}: expected http://HOST:PORT or https://HOST:PORT only; "
            "give a token as its own argument"
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port or _DEFAULT_PORTS[parts.scheme]}"


def _masked(url: str) -> str:
    """The URL without its user name and password: messages end up in logs."""
    return re.sub(r"//[^/@]*@", "//***@", url)
