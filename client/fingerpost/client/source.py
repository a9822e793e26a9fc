"""Where a client learns of workers: proxies, or a registry, from what the caller passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from fingerpost.client.resolver import ProxyResolver, RegistryResolver, proxy_url
from fingerpost.client.route.relay import RelayRoute
from fingerpost.client.route.route import DIRECT
from fingerpost.errors import ConfigurationError
from fingerpost.registry.address_policy import AddressPolicy
from fingerpost.registry.config import RegistryConfig
from fingerpost.registry.factory import open_registry
from fingerpost.registry.watching.signatures import EntrySignatures, open_signatures
from fingerpost.security.tls import ClientTls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yarl import URL

    from fingerpost.client.config import ClientConfig
    from fingerpost.client.credential import Credential
    from fingerpost.client.resolver import Resolver
    from fingerpost.client.route.route import Route
    from fingerpost.registry import Registry
    from fingerpost.security.tls import TlsConfig

__all__ = ["DEFAULT_PROXY", "Source"]

DEFAULT_PROXY: Final = "http://127.0.0.1:12480"
"""The proxy that a client without a URL asks."""


class Source(NamedTuple):
    """Either the URLs of `proxies`, or the resolver of a `registry`.

    `address_policy` and `signatures` are for what proxies answer; a registry has its own.
    `credential` is for proxies alone, `tls` for proxies and workers.
    """

    proxies: tuple[URL, ...] = ()
    registry: RegistryResolver | None = None
    address_policy: AddressPolicy = AddressPolicy()
    tls: TlsConfig | None = None
    credential: Credential | None = None
    signatures: EntrySignatures | None = None

    @classmethod
    def of(
        cls,
        sources: Sequence[str | Sequence[str] | Registry],
        registry: str | Registry | None = None,
        registry_config: RegistryConfig | None = None,
        tls: TlsConfig | None = None,
        credential: Credential | None = None,
    ) -> Source:
        """The source that a caller names: see `Client`. Does no I/O.

        Raises:
            ConfigurationError: a URL is not valid, or both proxies and a registry are named.
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
                    "registry, a list of either, or a Registry"
                )
        if credential is not None and (registry is not None or any(map(_is_registry, named))):
            raise ConfigurationError(
                "an API key or token is for proxies, and a registry was given: a registry's token "
                "is RegistryConfig.token_file"
            )
        if registry is not None:
            if named:
                raise ConfigurationError("both proxies and a registry were given: use either")
            return cls(registry=_open(registry, registry_config, tls), tls=tls)
        if sources and not named:
            raise ConfigurationError("an empty list of proxies was given: name at least one")
        if not any(map(_is_registry, named)):
            proxies = tuple(proxy_url(str(each)) for each in named or (DEFAULT_PROXY,))
            if credential is not None:
                credential.warn_in_clear(proxies)
            settings = RegistryConfig() if registry_config is None else registry_config
            return cls(
                proxies=proxies,
                credential=credential,
                address_policy=settings.address_policy(tls),
                tls=tls,
                signatures=open_signatures(settings.registration_keys),
            )
        if len(named) > 1:
            urls = [each for each in named if isinstance(each, str) and _is_registry(each)]
            if len(urls) < len(named):
                raise ConfigurationError(
                    "a registry was given beside other sources: use proxies alone, or URLs of "
                    "registries alone, with consul:// for Consul"
                )
            named = [" ".join(urls)]  # all of them as one, see `open_registry`
        return cls(registry=_open(named[0], registry_config, tls), tls=tls)

    def route(self, config: ClientConfig) -> Route:
        """How images reach the workers.

        Raises:
            ConfigurationError: `relay`, but a registry was named instead of proxies; or a file of
                keys is not valid.
        """
        if config.transport == "zmq":
            from fingerpost.client.zmq.route import ZmqRoute

            return ZmqRoute(config)
        if not config.relay:
            return DIRECT
        if self.registry is not None:
            raise ConfigurationError(
                "images are relayed by proxies, and a registry was given: name the proxies"
            )
        return RelayRoute(self.proxies, self.credential)

    def resolver(self, connect_timeout_s: float) -> Resolver:
        """The resolver of the source. Call it inside a running event loop."""
        return self.registry or ProxyResolver(
            self.proxies,
            connect_timeout_s=connect_timeout_s,
            address_policy=self.address_policy,
            tls=ClientTls(self.tls),
            credential=self.credential,
            signatures=self.signatures,
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
