"""How a subcommand reaches a running cluster: through proxies, or straight from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from fingerpost.registry import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client import Client
    from fingerpost.registry.options import RegistryOptions

__all__ = ["LOCAL_AGENT", "ClusterConsul", "ClusterProxy", "ClusterRegistry", "open_client"]

# Where Consul's agent listens on every machine that has one.
LOCAL_AGENT: Final = "consul://127.0.0.1:8500"

ClusterProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        metavar="URL",
        help="A proxy of the cluster; several may be given.",
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


def open_client(
    proxies: list[str] | None,
    registry: str | None,
    *,
    consul: bool,
    access: RegistryOptions,
) -> Client:
    """A client of the cluster that the options name; without any, the proxy on this machine.

    Raises:
        ConfigurationError: more than one of them was given.
    """
    from fingerpost.client import Client

    if sum(map(bool, (proxies, registry, consul))) > 1:
        raise ConfigurationError("--proxy, --registry and --consul exclude each other: use one")
    if consul or registry:
        return Client(registry=registry or LOCAL_AGENT, registry_options=access)
    return Client(*(proxies or ()))
