"""`fingerpost xds-bootstrap`: the file by which a client of gRPC or an Envoy finds workers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fingerpost.deploy.console import print_json
from fingerpost.errors import ConfigurationError
from fingerpost.security.callers.api_keys import is_key

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
            "--tls-ca",
            metavar="FILE",
            help="Authorities of the certificates of proxies and workers: use TLS.",
            show_default=False,
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            "--tls-cert",
            metavar="FILE",
            help="The client's own certificate, shown to proxies and workers.",
            show_default=False,
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(
            "--tls-key", metavar="FILE", help="The key of that certificate.", show_default=False
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="The token (JWT) by which proxies know the client; for --envoy it may be an "
            "API key, and is printed.",
            show_default=False,
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
    from fingerpost.deploy.xds_bootstrap import (
        ClientFiles,
        envoy_bootstrap,
        grpc_bootstrap,
        split_server,
    )

    servers = [split_server(each) for each in proxies]
    files = ClientFiles(
        ca=_absolute(tls_ca),
        cert=_absolute(tls_cert),
        key=_absolute(tls_key),
        token_file=_absolute(token_file),
    )
    credential = "" if token_file is None else _credential(token_file)
    made: dict[str, Any]
    if envoy is not None:
        made = envoy_bootstrap(
            servers, split_server(envoy), zone=zone, files=files, credential=credential
        )
    elif is_key(credential):
        raise ConfigurationError(
            f"{token_file} holds an API key, and clients of gRPC can show a token (JWT) or a "
            "certificate (--tls-cert): list one of these for the caller"
        )
    else:
        made = grpc_bootstrap(servers, zone=zone, files=files)
    print_json(made)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _credential(path: Path) -> str:
    """The API key or token in a file. Raises `ConfigurationError`."""
    from fingerpost.security.secret_file import read_file

    found = read_file(path, "the token").decode("utf-8", "replace").strip()
    if not found:
        raise ConfigurationError(f"{path} is empty: it holds a token, or for --envoy an API key")
    return found
