"""`fingerpost registry`: the embedded registry, for a single machine."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from fingerpost.deploy import options
from fingerpost.deploy.logs import start_logging
from fingerpost.deploy.options.tls import takes_server_tls_options
from fingerpost.security.tls.config import TlsConfig

__all__ = ["add_to"]

logger = logging.getLogger(__name__)


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_server_tls_options(registry, asks_workers=True))


def registry(
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 12481,
    host: options.Host = "127.0.0.1",
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow a --host that other machines can reach.")
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name by which the registry may be asked, beside localhost and addresses. "
            "May be repeated.",
        ),
    ] = None,
    audit_log: options.AuditLogFile = None,
    log_level: options.LogLevel = "info",
    log_format: options.LogFormat = "text",
    follow_parent: options.FollowParent = False,
    *,
    tls: TlsConfig | None,
) -> None:
    """Run the embedded registry, for a single machine, demos and tests. Clusters use Consul.

    It keeps everything in memory; after a restart the workers register again.
    """
    from fingerpost.registry.embedded import EmbeddedRegistry
    from fingerpost.registry.http.descriptors import raise_descriptor_limit

    start_logging(log_level, log_format)

    async def run() -> None:
        from fingerpost.basics.shutdown import ShutdownSignals

        embedded = EmbeddedRegistry(
            host,
            port,
            allow_remote=allow_remote,
            allow_hosts=allow_host or (),
            audit_log=audit_log,
            tls=tls,
        )
        async with embedded as serving:
            signals = ShutdownSignals(follow_parent=follow_parent)
            logger.info("listening at %s; nothing is written to disk", serving.url)
            await signals.wait()

    raise_descriptor_limit()
    asyncio.run(run())
