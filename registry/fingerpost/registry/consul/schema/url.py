"""The URL of a Consul agent, checked and in one form. Pure."""

from __future__ import annotations

import urllib.parse
from typing import Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.credentials import mask_password

__all__ = ["parse_base_url"]

_DEFAULT_PORTS: Final = {"http": 8500, "https": 8501}


def parse_base_url(url: str) -> str:
    """Check `http(s)://HOST[:PORT]`; return it with its port and without a slash at its end.

    Raises:
        ConfigurationError: another scheme, no host, a path, a query, or a user name.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(f"registry URL {mask_password(url)!r}: {error}") from error
    extras = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or not host or extras:
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: expected only http://HOST:PORT or "
            "https://HOST:PORT; give a token as its own argument"
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}:{port or _DEFAULT_PORTS[parts.scheme]}"
