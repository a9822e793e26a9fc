"""The options that name a running cluster: its proxies, or its registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.deploy.options.tls import takes_client_tls_options
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig
from fingerpost.security.tls.config import TlsConfig

if TYPE_CHECKING:
    from fingerpost.client import Client, ClientConfig
    from fingerpost.client.resolver import Resolver

__all__ = ["LOCAL_AGENT", "ApiKey", "ClusterTarget", "TokenFile", "takes_cluster_options"]

LOCAL_AGENT: Final = "consul://127.0.0.1:8500"
"""The Consul agent of this machine, at Consul's own port."""

ClusterProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="URL",
        help="A proxy of the cluster, or the URL of a registry. May be repeated for proxies.",
    ),
]
ClusterRegistry = Annotated[
    list[str] | None,
    typer.Option(
        "--registry",
        metavar="URL",
        help="Ask this registry instead of a proxy; repeatable.",
    ),
]
ClusterConsul = Annotated[
    bool, typer.Option("--consul", help=f"Ask the Consul agent of this machine, {LOCAL_AGENT}.")
]
ClusterLease = Annotated[
    str | None,
    typer.Option(
        "--lease-file",
        metavar="FILE",
        help="Send the lease in this file, where a registry is asked and workers require leases; "
        "see `fingerpost lease --watch`.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="FINGERPOST_API_KEY",
        metavar="KEY",
        help="Shown to proxies that ask who calls. Other users of this machine see arguments: use "
        "the variable, or --token-file.",
        show_default=False,
    ),
]
TokenFile = Annotated[
    str | None,
    typer.Option(
        "--token-file",
        envvar="FINGERPOST_TOKEN_FILE",
        metavar="FILE",
        help="File with an API key or a token for proxies; read again when it changes.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget:
    """The cluster that the options name; without options, that of the proxy on this machine.

    Attributes:
        proxies: URLs of proxies to ask.
        registry: URL of a registry to ask instead, or of several, separated by spaces.
        consul: whether to ask the Consul agent of this machine instead.
        registry_config: access to the registry.
        lease_file: a file with a lease for the workers.
        tls: certificates for workers and proxies.
        api_key, token_file: what proxies are shown, see `Client`; a registry gets neither.

    Raises:
        ConfigurationError: more than one of them was given.
    """

    proxies: tuple[str, ...]
    registry: str | None
    consul: bool
    registry_config: RegistryConfig
    lease_file: str | None = None
    tls: TlsConfig | None = None
    api_key: str | None = field(default=None, repr=False)
    token_file: str | None = None

    def __post_init__(self) -> None:
        if sum(map(bool, (self.proxies, self.registry, self.consul))) > 1:
            raise ConfigurationError("--proxy, --registry and --consul exclude each other: use one")

    @property
    def named(self) -> bool:
        """Whether an option named a cluster."""
        return bool(self.proxies or self.url)

    @property
    def url(self) -> str | None:
        """The URL of the registry to ask; None where proxies are asked."""
        return self.registry or (LOCAL_AGENT if self.consul else None)

    def client(
        self,
        config: ClientConfig | None = None,
        *,
        relay: bool = False,
        priority: str | None = None,
    ) -> Client:
        """A client of the cluster.

        Args:
            config: the client's settings.
            relay: send images through the proxies.
            priority: the class of the images.

        Raises:
            ConfigurationError: `relay` is set, but a registry was named instead of proxies.
        """
        from fingerpost.client import Client, ClientConfig

        if relay:
            if self.url is not None:
                raise ConfigurationError(
                    "--relay sends images through proxies: name them with --proxy URL"
                )
            config = replace(config or ClientConfig(), relay=True)
        if self.lease_file is not None:
            config = replace(config or ClientConfig(), lease_file=self.lease_file)
        return Client(
            *self.proxies,
            registry=self.url,
            registry_config=self.registry_config,
            config=config,
            priority=priority,
            tls=self.tls,
            api_key=self.api_key if self.url is None else None,
            token_file=self.token_file if self.url is None else None,
        )

    def resolver(self) -> Resolver:
        """The resolver of such a client. Make it inside a running event loop."""
        from fingerpost.client import ClientConfig
        from fingerpost.client.credential import Credential
        from fingerpost.client.source import Source

        credential = (
            None
            if self.url is not None
            else Credential.of(api_key=self.api_key, token=None, token_file=self.token_file)
        )
        source = Source.of(
            self.proxies, self.url, self.registry_config, self.tls, credential=credential
        )
        return source.resolver(ClientConfig().connect_timeout_s)


def takes_cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add these options, and those of the registry and of TLS, to a subcommand.

    The subcommand gets their values as its argument `cluster`.
    """

    def wrapped(
        *,
        proxy: ClusterProxy = None,
        registry: ClusterRegistry = None,
        consul: ClusterConsul = False,
        lease_file: ClusterLease = None,
        api_key: ApiKey = None,
        token_file: TokenFile = None,
        registry_config: RegistryConfig,
        tls: TlsConfig | None,
        **given: Any,
    ) -> None:
        proxies = tuple(proxy or ())
        command(
            **given,
            cluster=ClusterTarget(
                proxies=proxies,
                registry=" ".join(registry) if registry else None,
                consul=consul,
                registry_config=registry_config,
                lease_file=lease_file,
                tls=tls,
                api_key=api_key,
                token_file=token_file,
            ),
        )

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    *added, _ = inspect.signature(wrapped, eval_str=True).parameters.values()
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [each for each in own if each.name != "cluster"]
    wrapped.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    return takes_registry_options(takes_client_tls_options(wrapped))
