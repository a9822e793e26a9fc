"""Makes a registry from its URL, as given on a command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fingerpost.basics.renames import renamed_arguments
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import CheckConfig, RegistryConfig
from fingerpost.registry.credentials import Token, mask_password

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
    ZooKeeper ensemble; `kubernetes://NAMESPACE/SERVICE` is a Kubernetes cluster, see
    `KubernetesUrl`; `static://HOST:PORT,HOST:PORT` is a fixed list of workers;
    `seaport://HOST:PORT` is a hub of seaport, which is only read.
    Several URLs, separated by spaces, are one registry: see `SeveralRegistries`.
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
    urls = url.split()
    if len(urls) > 1:
        return _several(urls, registry_config)
    if registry_config.registries != "merged":
        raise ConfigurationError(
            f"registries={registry_config.registries!r} has an effect only with several registries"
        )
    return _open(urls[0] if urls else url, registry_config)


def _open(url: str, registry_config: RegistryConfig) -> Registry:
    if url == "embedded":
        url = _EMBEDDED
    scheme = url.partition("://")[0].lower()
    opener = _OPENERS.get(scheme)
    if opener is None or "://" not in url:
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: expected consul://HOST:PORT, "
            "consul+https://HOST:PORT, http://HOST:PORT, https://HOST:PORT, "
            "zookeeper://HOST:PORT/PATH, kubernetes://NAMESPACE, static://HOST:PORT, "
            "seaport://HOST:PORT or embedded"
        )
    return opener(url, registry_config)


def _several(urls: list[str], registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.several.registry import SeveralRegistries

    if len(set(urls)) != len(urls):
        raise ConfigurationError(
            f"{mask_password(' '.join(urls))!r}: a registry is given twice; give each once"
        )
    # What is for one registry alone, such as a token, is for the only one that can take it.
    common = {"allow_networks", "registration_keys", "foreign_services", "workers_tls"}
    shared = RegistryConfig(**{name: getattr(registry_config, name) for name in common})
    default = RegistryConfig()
    theirs = dataclasses.replace(registry_config, snapshot_folder=None, registries="merged")
    own = [
        field.name
        for field in dataclasses.fields(theirs)
        if field.name not in common and getattr(theirs, field.name) != getattr(default, field.name)
    ]
    takers = [each for each in urls if not each.startswith(("static:", "kubernetes:"))] or [
        each for each in urls if each.startswith("kubernetes:")
    ]
    if own and len(takers) != 1:
        raise ConfigurationError(
            f"{', '.join(own)}: which of the registries {mask_password(' '.join(urls))!r} it is "
            "for is not clear; give it with one registry alone"
        )
    static = RegistryConfig(workers_tls=registry_config.workers_tls)
    opened = [
        _open(each, static if each.startswith("static:") else theirs if each in takers else shared)
        for each in urls
    ]
    store = _reader_arguments(registry_config)["store"]
    return SeveralRegistries(opened, mode=registry_config.registries, store=store)


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
    from fingerpost.registry.engine_check import HttpCheckConfig
    from fingerpost.registry.zookeeper.registry import ZooKeeperRegistry

    _check_settings(
        url,
        registry_config,
        {
            "token",
            "token_file",
            "allow_networks",
            "registration_keys",
            "foreign_services",
            "snapshot_folder",
            "workers_tls",
            "check",
        },
    )
    _check_path_alone(url, registry_config)
    auth = Token(registry_config.token, registry_config.token_file).current()
    return ZooKeeperRegistry(
        url,
        auth=auth,
        tls=registry_config.workers_tls,
        check_config=HttpCheckConfig(path=registry_config.check.path),
        **_reader_arguments(registry_config),
    )


def _kubernetes(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.kubernetes.registry import CHECK, KubernetesRegistry

    _check_settings(
        url,
        registry_config,
        {
            "token",
            "token_file",
            "ca_file",
            "cert_file",
            "key_file",
            "verify",
            "allow_networks",
            "registration_keys",
            "foreign_services",
            "snapshot_folder",
            "workers_tls",
            "check",
        },
    )
    _check_path_alone(url, registry_config)
    return KubernetesRegistry(
        url,
        registry_config=registry_config,
        check_config=dataclasses.replace(CHECK, path=registry_config.check.path),
        **_reader_arguments(registry_config),
    )


def _seaport(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.seaport import SeaportRegistry

    known = {"allow_networks", "registration_keys", "foreign_services", "workers_tls"}
    _check_settings(url, registry_config, known)
    arguments = _reader_arguments(registry_config)
    return SeaportRegistry(
        url, address_policy=arguments["address_policy"], signatures=arguments["signatures"]
    )


def _static(url: str, registry_config: RegistryConfig) -> Registry:
    from fingerpost.registry.static import StaticRegistry

    _check_settings(url, registry_config, {"workers_tls"})
    return StaticRegistry(url)


def _reader_arguments(registry_config: RegistryConfig) -> dict[str, Any]:
    """Arguments of every registry that is watched: which entries it uses, where it keeps them."""
    from fingerpost.registry.watching.signatures import open_signatures
    from fingerpost.registry.watching.snapshot_store import SnapshotStore

    address_policy = registry_config.address_policy(registry_config.workers_tls)
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


def _check_path_alone(url: str, registry_config: RegistryConfig) -> None:
    """Raise an error for a check that the process cannot make itself."""
    if registry_config.check != CheckConfig(path=registry_config.check.path):
        raise ConfigurationError(
            f"registry URL {mask_password(url)!r}: of the check, only the path has an effect here"
        )


# By scheme in lower case; each function gets the whole URL.
_OPENERS: Final[dict[str, Callable[[str, RegistryConfig], Registry]]] = {
    "consul": _consul,
    "consul+http": _consul,
    "consul+https": _consul,
    "http": _consul,
    "https": _consul,
    "kubernetes": _kubernetes,
    "seaport": _seaport,
    "static": _static,
    "zookeeper": _zookeeper,
}
