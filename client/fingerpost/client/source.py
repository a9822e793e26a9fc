"""Where a client learns of workers: proxies, or a registry, from what the caller passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fingerpost.client.resolver import ProxyResolver, RegistryResolver, proxy_url
from fingerpost.errors import ConfigurationError
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.factory import open_registry
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarl import URL

    from fingerpost.client.resolver import Resolver
    from fingerpost.registry import Registry
    from fingerpost.registry.config import RegistryConfig
    from fingerpost.security.tls import TlsConfig

__all__ = ["DEFAULT_PROXY", "Source"]

DEFAULT_PROXY: Final = "http://127.0.0.1:12480"
"""The proxy that a client without a URL asks."""


class Source(NamedTuple):
    """Either the URLs of `proxies`, or the resolver of a `registry`.

    `address_policy` is for the addresses that proxies give; a registry has its own. `tls` is for
    the proxies and the workers.
    """

    proxies: tuple[URL, ...] = ()
    registry: RegistryResolver | None = None
    address_policy: AddressPolicy = AddressPolicy()
    tls: TlsConfig | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[str | Sequence[str] | Registry],
        registry: str | Registry | None = None,
        registry_config: RegistryConfig | None = None,
        tls: TlsConfig | None = None,
    ) -> Source:
        """The source that a caller names: see `Client`. Does no I/O.

        Raises:
            ConfigurationError: a URL is not valid, or both proxies and a registry are named, or
                several registries.
        """
        named: list[str | Registry] = []
        for each in sources:
            if isinstance(each, list | tuple):
                named += each
            else:
                named.append(each)  # type: ignore[arg-type]
        for source in (*named, *(() if registry is None else (registry,))):
            if not (isinstance(source, str) or callable(getattr(source, "watch", None))):
                raise ConfigurationError(
                    f"{source!r} is not a valid source of workers: use the URL of a proxy or of a "
                    "registry, a list of proxies' URLs, or a Registry"
                )
        if registry is not None:
            if named:
                raise ConfigurationError("both proxies and a registry were given: use either")
            return cls(registry=_open(registry, registry_config, tls), tls=tls)
        if sources and not named:
            raise ConfigurationError("an empty list of proxies was given: name at least one")
        if not any(map(_is_registry, named)):
            return cls(
                proxies=tuple(proxy_url(str(each)) for each in named or (DEFAULT_PROXY,)),
                address_policy=AddressPolicy.parse(
                    () if registry_config is None else registry_config.allow_networks
                ),
                tls=tls,
            )
        if len(named) > 1:
            raise ConfigurationError(
                "a registry was given beside other URLs: use either one registry or several proxies"
            )
        return cls(registry=_open(named[0], registry_config, tls), tls=tls)

    def resolver(self, connect_timeout_s: float) -> Resolver:
        """The resolver of the source. Call it inside a running event loop."""
        return self.registry or ProxyResolver(
            self.proxies,
            connect_timeout_s=connect_timeout_s,
            address_policy=self.address_policy,
            tls=ClientTls(self.tls),
        )


def _is_registry(source: str | Registry) -> bool:
    """Whether it is a registry or its URL; an http(s) URL is a proxy's here."""
    if not isinstance(source, str):
        return True
    scheme, separator, _ = source.partition("://")
    return source == "embedded" or (bool(separator) and scheme.lower() not in {"http", "https"})


def _open(
    registry: str | Registry, config: RegistryConfig | None, tls: TlsConfig | None
) -> RegistryResolver:
    if isinstance(registry, str):
        return RegistryResolver(open_registry(registry, config, tls=tls), owned=True)
    return RegistryResolver(registry, owned=False)
