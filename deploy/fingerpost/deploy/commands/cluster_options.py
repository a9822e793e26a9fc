"""How a subcommand reaches a running cluster: through proxies, or straight from Consul."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.registry import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client import Client

__all__ = ["ClusterConsul", "ClusterProxy", "open_client"]

ClusterProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--proxy",
        envvar="FINGERPOST_PROXY",
        metavar="URL",
        help="A proxy of the cluster; several may be given. Default: http://127.0.0.1:12480",
    ),
]
ClusterConsul = Annotated[
    str | None,
    typer.Option(
        "--consul",
        metavar="URL",
        help="Ask this registry instead, such as http://127.0.0.1:8500.",
    ),
]


def open_client(proxies: list[str] | None, consul: str | None) -> Client:
    """A client of the cluster that the options name."""
    from fingerpost.client import Client

    if consul is not None:
        if proxies:
            raise ConfigurationError("--proxy and --consul were both given: use either")
        return Client(registry=consul)
    return Client(*(proxies or ()))
