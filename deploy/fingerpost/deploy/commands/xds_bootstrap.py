"""`fingerpost xds-bootstrap`: the file by which a client of gRPC or an Envoy finds workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.deploy.console import print_json
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Any

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command("xds-bootstrap")(xds_bootstrap)


def xds_bootstrap(
    *,
    proxies: Annotated[
        list[str],
        typer.Argument(
            metavar="HOST[:PORT] ...",
            help="Proxies that serve xDS; port 12482 where none is given.",
            show_default=False,
        ),
    ],
    zone: Annotated[
        str, typer.Option(help="Zone of the client: its workers come first.", show_default=False)
    ] = "",
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            "--tls-ca", metavar="FILE", help="Authorities of the proxies' certificates: use TLS."
        ),
    ] = None,
    envoy: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Print the configuration of an Envoy instead, which listens there for plain HTTP.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Print the bootstrap file of a client of gRPC, for any language.

    fingerpost xds-bootstrap proxy-1 > bootstrap.json

    GRPC_XDS_BOOTSTRAP=bootstrap.json python program.py   # which connects to xds:///flowers
    """
    from fingerpost.deploy.xds_bootstrap import envoy_bootstrap, grpc_bootstrap, split_server

    servers = [split_server(each) for each in proxies]
    made: dict[str, Any]
    if envoy is None:
        ca = None if tls_ca is None else str(tls_ca.absolute())
        made = grpc_bootstrap(servers, zone=zone, ca=ca)
    elif tls_ca is not None:
        raise ConfigurationError("--tls-ca has no effect with --envoy: write it in Envoy's file")
    else:
        made = envoy_bootstrap(servers, split_server(envoy), zone=zone)
    print_json(made)
