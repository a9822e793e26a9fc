"""A ZooKeeper ensemble's address: `zookeeper://[USER:PASSWORD@]HOST[:PORT][,HOST...][/PATH]`."""

from __future__ import annotations

import re
import urllib.parse
from typing import Final, Self

import msgspec

from fingerpost.errors import ConfigurationError
from fingerpost.registry.credentials import mask_password
from fingerpost.registry.instance import format_address

__all__ = ["ZooKeeperAddress"]

DEFAULT_PORT: Final = 2181
DEFAULT_ROOT: Final = "/fingerpost"

_FORM: Final = "zookeeper://HOST:PORT,HOST:PORT/PATH"
_SEGMENT: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}", re.ASCII)


class ZooKeeperAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of an ensemble, and the root node of Fingerpost's services.

    Attributes:
        hosts: `host:port` of each server, an IPv6 host in brackets.
        root: the node that holds the services, without a slash at the end.
        auth: `USER:PASSWORD` for ZooKeeper's `digest` scheme, or None; in no message.
    """

    hosts: tuple[str, ...]
    root: str = DEFAULT_ROOT
    auth: str | None = None

    @classmethod
    def parse(cls, url: str, *, auth: str | None = None) -> Self:
        """Parse a URL; `auth` (`USER:PASSWORD`) takes precedence over the URL's own.

        Raises:
            ConfigurationError: not of that form; the message does not show the password.
        """
        scheme, separator, rest = url.partition("://")
        authority, _, path = rest.partition("/")
        credential, at, servers = authority.rpartition("@")
        if scheme.lower() != "zookeeper" or not separator or not servers:
            raise ConfigurationError(f"registry URL {mask_password(url)!r}: expected {_FORM}")
        if auth is None and at:
            auth = urllib.parse.unquote(credential)
        if auth is not None and not re.fullmatch(r"[^:]+:.+", auth, re.DOTALL):
            raise ConfigurationError(
                f"registry URL {mask_password(url)!r}: ZooKeeper's credential is USER:PASSWORD"
            )
        return cls(
            hosts=tuple(_server(each, url) for each in servers.split(",")),
            root=_root(path, url),
            auth=auth,
        )

    @property
    def url(self) -> str:
        """The URL without the credential."""
        return f"zookeeper://{','.join(self.hosts)}{self.root}"


def _server(text: str, url: str) -> str:
    match = re.fullmatch(r"(\[.*\]|[^\[\]:]*)(?::([0-9]{1,5}))?", text, re.ASCII)
    host = match[1] if match else ""
    port = int(match[2] or DEFAULT_PORT) if match else 0
    good = _IPV6.fullmatch(host[1:-1]) if host.startswith("[") else _HOST.fullmatch(host)
    if not good or not 1 <= port <= 65535:
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: {text!r} is not HOST or HOST:PORT; "
            f"expected {_FORM}"
        )
    return format_address(host.strip("[]"), port)


def _root(path: str, url: str) -> str:
    path = path.strip("/")
    if not path:
        return DEFAULT_ROOT
    segments = path.split("/")
    # The top node "zookeeper" holds the ensemble's own settings.
    if segments[0] == "zookeeper" or not all(map(_SEGMENT.fullmatch, segments)) or ".." in path:
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: path {path!r} is not made of names of 1 to 64 "
            "letters, digits, dots, hyphens and underscores, such as /fingerpost (not /zookeeper)"
        )
    return "/" + path
