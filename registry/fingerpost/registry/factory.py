"""Makes a registry from its URL, as given on a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fingerpost.errors import ConfigurationError
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.credentials import Token, mask_password
from fingerpost.registry.renames import renamed_arguments

if TYPE_CHECKING:
    from fingerpost.registry.base import Registry
    from fingerpost.security.tls import TlsConfig

__all__ = ["open_registry"]

_EMBEDDED: Final = "http://127.0.0.1:12481"


@renamed_arguments("open_registry", options="registry_config")
def open_registry(
    url: str,
    registry_config: RegistryConfig | None = None,
    *,
    token: str | None = None,
    tls: TlsConfig | None = None,
) -> Registry:
    """The registry at `url`; the network is not touched until it is used.

    `consul://HOST:PORT` or `http://HOST:PORT` is a Consul agent or the embedded registry;
    `embedded` is the one that `fingerpost registry` runs on this machine by default;
    `consul+https://` or `https://` is Consul with TLS; `zookeeper://HOST:PORT,HOST:PORT/PATH` is a
    ZooKeeper ensemble; `static://HOST:PORT,HOST:PORT` is a fixed list of workers.
    `registry_config` has credentials, certificates and datacenters; `token` replaces its field of
    that name, and `tls` the field `workers_tls`. For ZooKeeper the token is `USER:PASSWORD`.

    Raises:
        ConfigurationError: another scheme, not a valid URL, a setting that this registry does not
            have, or a file in `registry_config` that is missing or not valid.
    """
    registry_config = registry_config or RegistryConfig()
    if token is not None:
        registry_config = dataclasses.replace(registry_config, token=token)
    if tls is not None:
        registry_config = dataclasses.replace(registry_config, workers_tls=tls)
    if url == "embedded":
        url = _EMBEDDED
    scheme = url.partition("://")[0].lower()
    opener = _OPENERS.get(scheme)
    if opener is None or "://" not in url:
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: expected consul://HOST:PORT, "
            "consul+https://HOST:PORT, http://HOST:PORT, https://HOST:PORT, "
            "zookeeper://HOST:PORT/PATH, static://HOST:PORT or embedded"
        )
    return opener(url, registry_config)


# Each imports its registry itself, because importing aiohttp takes longer than all the rest.


def _consul(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.consul.registry import ConsulRegistry

    scheme, _, rest = url.partition("://")
    transport = "https" if scheme.lower().endswith("https") else "http"
    if not rest.strip("/"):
        raise ConfigurationError(
            f"registry URL {url!r} names no host: write {scheme}://HOST:PORT, such as "
            f"{scheme}://127.0.0.1:8500"
        )
    return ConsulRegistry(
        f"{transport}://{rest}",
        registry_config=registry_config,
        **_reader_arguments(registry_config),
    )


def _zookeeper(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

    _check_settings(
        url,
        registry_config,
        {
            "token",
            "token_file",
            "allow_networks",
            "registration_keys",
            "snapshot_folder",
            "workers_tls",
        },
    )
    auth = Token(registry_config.token, registry_config.token_file).current()
    return ZooKeeperRegistry(
        url, auth=auth, tls=registry_config.workers_tls, **_reader_arguments(registry_config)
    )


def _static(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.static import StaticRegistry

    _check_settings(url, registry_config, {"workers_tls"})
    return StaticRegistry(url)


def _reader_arguments(registry_config: RegistryConfig) -> dict[str, Any]:
    """Arguments of every registry that is watched: which entries it uses, where it keeps them."""
    from fingerpost.registry.watching.signatures import open_signatures
    from fingerpost.registry.watching.snapshot_store import SnapshotStore

    address_policy = AddressPolicy.parse(registry_config.allow_networks)
    folder = registry_config.snapshot_folder
    signatures = open_signatures(registry_config.registration_keys)
    store = (
        SnapshotStore(Path(folder), address_policy=address_policy, signatures=signatures)
        if folder is not None
        else None
    )
    return {
        "address_policy": address_policy,
        "signatures": signatures,
        "store": store,
    }


def _check_settings(url: str, registry_config: RegistryConfig, known: set[str]) -> None:
    """Raise an error for a setting that would have no effect."""
    default = RegistryConfig()
    for field in dataclasses.fields(registry_config):
        name = field.name
        if name not in known and getattr(registry_config, name) != getattr(default, name):
            raise ConfigurationError(
                f"registry URL {mask_password(url)!r}: {name} has an effect only with Consul"
            )


# By scheme in lower case; each function gets the whole URL.
_OPENERS: Final[dict[str, Callable[[str, RegistryConfig], Registry]]] = {
    "consul": _consul,
    "consul+http": _consul,
    "consul+https": _consul,
    "http": _consul,
    "https": _consul,
    "static": _static,
    "zookeeper": _zookeeper,
}
