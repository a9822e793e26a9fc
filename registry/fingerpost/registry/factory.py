"""A registry from its URL, as given on a command line."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.config import RegistryConfig

if TYPE_CHECKING:
    from fingerpost.registry.base import Registry

__all__ = ["open_registry", "parse_base_url"]

_EMBEDDED: Final = "http://127.0.0.1:12481"
_DEFAULT_PORTS: Final = {"http": 8500, "https": 8501}


def open_registry(
    url: str, registry_config: RegistryConfig | None = None, *, token: str | None = None
) -> Registry:
    """The registry at `url`; the network is not touched until it is used.

    `consul://HOST:PORT` or `http://HOST:PORT` is a Consul agent or the embedded registry;
    `embedded` is the one that `fingerpost registry` runs on this machine by default;
    `consul+https://` or `https://` is Consul with TLS; `zookeeper://HOST:PORT,HOST:PORT/PATH` is a
    ZooKeeper ensemble; `static://HOST:PORT,HOST:PORT` is a fixed list of workers.
    `registry_config` has credentials, certificates and datacenters; `token` replaces its field of
    that name. For ZooKeeper the token is `USER:PASSWORD`.

    Raises:
        ConfigurationError: another scheme, no such URL, an option that this registry does not
            have, or a file named in the registry_config that is missing or holds something else.
    """
    registry_config = registry_config or RegistryConfig()
    if token is not None:
        registry_config = dataclasses.replace(registry_config, token=token)
    if url == "embedded":
        url = _EMBEDDED
    scheme = url.partition("://")[0].lower()
    opener = _OPENERS.get(scheme)
    if opener is None or "://" not in url:
        raise ConfigurationError(
            f"registry URL {_masked(url)!r}: expected consul://HOST:PORT, "
            "consul+https://HOST:PORT, http://HOST:PORT, https://HOST:PORT, "
            "zookeeper://HOST:PORT/PATH, static://HOST:PORT or embedded"
        )
    return opener(url, registry_config)


# Each imports its registry itself, because aiohttp takes longer to import than all else here.


def _consul(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.consul.registry import ConsulRegistry

    scheme, _, rest = url.partition("://")
    transport = "https" if scheme.lower().endswith("https") else "http"
    return ConsulRegistry(
        f"{transport}://{rest}", registry_config=registry_config, **_reading(registry_config)
    )


def _zookeeper(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.credentials import Token
    from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

    _refuse(url, registry_config, {"token", "token_file", "allow_networks", "snapshot_folder"})
    auth = Token(registry_config.token, registry_config.token_file).current()
    return ZooKeeperRegistry(url, auth=auth, **_reading(registry_config))


def _static(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.static import StaticRegistry

    _refuse(url, registry_config, set())
    return StaticRegistry(url)


def _reading(registry_config: RegistryConfig) -> dict[str, Any]:
    """What every registry that is watched takes: whom to let in, and where to keep snapshots."""
    from fingerpost.registry.watching.snapshot_store import SnapshotStore

    address_policy = AddressPolicy.parse(registry_config.allow_networks)
    folder = registry_config.snapshot_folder
    store = (
        SnapshotStore(Path(folder), address_policy=address_policy) if folder is not None else None
    )
    return {"address_policy": address_policy, "store": store}


def _refuse(url: str, registry_config: RegistryConfig, known: set[str]) -> None:
    """An option that would silently do nothing is an error."""
    default = RegistryConfig()
    for field in dataclasses.fields(registry_config):
        name = field.name
        if name not in known and getattr(registry_config, name) != getattr(default, name):
            raise ConfigurationError(f"registry URL {_masked(url)!r}: {name} is for Consul only")


# By scheme in lower case; each is given the whole URL.
_OPENERS: Final[dict[str, Callable[[str, RegistryConfig], Registry]]] = {
    "consul": _consul,
    "consul+http": _consul,
    "consul+https": _consul,
    "http": _consul,
    "https": _consul,
    "static": _static,
    "zookeeper": _zookeeper,
}


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
