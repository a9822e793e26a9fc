"""`fingerpost lease`: the lease of a model, for programs without Fingerpost's client."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options
from fingerpost.errors import ConfigurationError

if TYPE_CHECKING:
    from fingerpost.client.resolver import Resolver

__all__ = ["add_to"]

# The lookup that brings the next lease is held; this is how soon the file has it.
_CHECK_S: Final = 0.25


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(lease))


def lease(
    *,
    model: Annotated[str, typer.Argument(help="The model that the lease is for.")],
    watch: Annotated[
        Path | None,
        typer.Option(
            "--watch",
            metavar="FILE",
            help="Keep running, and keep a fresh lease in this file (mode 0600).",
            show_default=False,
        ),
    ] = None,
    cluster: ClusterTarget,
) -> None:
    """Print a lease: the signed right to send images to a model, for some minutes.

    curl -H "Authorization: Bearer $(fingerpost lease digits)" --data-binary @image.png WORKER
    """
    if cluster.url is not None or cluster.lease_file is not None:
        raise ConfigurationError(
            "leases come from proxies: name one with --proxy URL, and neither a registry nor "
            "--lease-file"
        )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_print(cluster, model, watch))


async def _print(cluster: ClusterTarget, model: str, file: Path | None) -> None:
    from fingerpost.client import ClientConfig
    from fingerpost.errors import UnknownService
    from fingerpost.registry import ModelReference

    service = ModelReference.parse(model).model
    resolver = cluster.resolver()
    try:
        view = await resolver.watch(service).ready(ClientConfig().wait_for_ready_s)
        token = resolver.lease(service)
        if not token:
            if not view.known:
                raise UnknownService(f"no service {service!r}: the name is misspelled")
            raise ConfigurationError(
                "the proxy gave no lease: it signs them with --lease-key, while a worker is healthy"
            )
        if file is None:
            typer.echo(token)
        else:
            await _keep_fresh(resolver, service, file)
    finally:
        await resolver.aclose()


async def _keep_fresh(resolver: Resolver, service: str, file: Path) -> None:
    """Write each new lease, until cancelled; in an outage the last one stays."""
    from fingerpost.security.secret_file import write_file

    written = ""
    while True:
        token = resolver.lease(service)
        if token != written:
            write_file(file, f"{token}\n".encode(), mode=0o600, replace=True)
            written = token
        await asyncio.sleep(_CHECK_S)
