"""How a subcommand reaches a running cluster: through proxies, or straight from the registry."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.errors import ConfigurationError
from fingerpost.registry.config import RegistryConfig

if TYPE_CHECKING:
    from fingerpost.client import Client, ClientConfig
    from fingerpost.client.resolver import Resolver

__all__ = ["LOCAL_AGENT", "ClusterTarget", "takes_cluster_options"]

# Where Consul's agent listens on every machine that has one.
LOCAL_AGENT: Final = "consul://127.0.0.1:8500"

ClusterProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="URL",
        help="A proxy of the cluster; several may be given. Or the URL of a registry.",
    ),
]
ClusterRegistry = Annotated[
    str | None,
    typer.Option(
        "--registry", metavar="URL", help="Ask this registry, such as consul://10.0.0.5:8500."
    ),
]
ClusterConsul = Annotated[
    bool, typer.Option("--consul", help=f"Ask this machine's Consul agent, {LOCAL_AGENT}.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTarget:
    """The cluster that the options name; without any, the one of the proxy on this machine.

    Raises:
        ConfigurationError: more than one of proxies, registry and agent was given.
    """

    proxies: tuple[str, ...]
    registry: str | None
    consul: bool
    registry_config: RegistryConfig

    def __post_init__(self) -> None:
        if sum(map(bool, (self.proxies, self.registry, self.consul))) > 1:
            raise ConfigurationError("--proxy, --registry and --consul exclude each other: use one")

    @property
    def named(self) -> bool:
        """Whether an option named one."""
        return bool(self.proxies or self.url)

    @property
    def url(self) -> str | None:
        """The registry's URL; None where proxies are to be asked."""
        return self.registry or (LOCAL_AGENT if self.consul else None)

    def client(self, config: ClientConfig | None = None, *, relay: bool = False) -> Client:
        """A client of it, through the proxies' relays where that is asked for.

        Raises:
            ConfigurationError: proxies are needed to relay, and a registry was named.
        """
        from fingerpost.client import Client, ClientConfig

        if relay:
            if self.url is not None:
                raise ConfigurationError("--relay goes through proxies: name them by --proxy URL")
            config = replace(config or ClientConfig(), relay=True)
        return Client(
            *self.proxies, registry=self.url, registry_config=self.registry_config, config=config
        )

    def resolver(self) -> Resolver:
        """What a client asks there. Make it inside a running loop."""
        from fingerpost.client import ClientConfig
        from fingerpost.client.source import Source

        source = Source.of(self.proxies, registry=self.url, registry_config=self.registry_config)
        return source.resolver(connect_timeout_s=ClientConfig().connect_timeout_s)


def takes_cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add these options, and those of the registry, to a subcommand.

    The subcommand gets their values as its argument `cluster`.
    """

    def wrapped(
        *,
        proxy: ClusterProxy = None,
        registry: ClusterRegistry = None,
        consul: ClusterConsul = False,
        registry_config: RegistryConfig,
        **given: Any,
    ) -> None:
        proxies = tuple(proxy or ())
        command(
            **given,
            cluster=ClusterTarget(
                proxies=proxies, registry=registry, consul=consul, registry_config=registry_config
            ),
        )

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    *added, _ = inspect.signature(wrapped, eval_str=True).parameters.values()
    own = inspect.signature(command, eval_str=True).parameters.values()
    kept = [each for each in own if each.name != "cluster"]
    wrapped.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    return takes_registry_options(wrapped)
