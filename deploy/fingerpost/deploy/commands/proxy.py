"""`fingerpost proxy`: answer "where?"."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import typer

from fingerpost.deploy.commands import options
from fingerpost.deploy.console import start_logging

__all__ = ["add_to"]

logger = logging.getLogger(__name__)


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(proxy)


def proxy(
    registry: options.RegistryUrl = options.DEFAULT_REGISTRY,
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 12480,
    host: options.Host = "127.0.0.1",
    service: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What GET / answers for; by default the only service."),
    ] = None,
    relay: Annotated[
        bool,
        typer.Option("--relay", help="Carry images for clients that cannot reach the workers."),
    ] = False,
    lease: Annotated[
        float, typer.Option(help="Seconds that clients may use an answer without asking again.")
    ] = 2.0,
    log_level: options.LogLevel = "info",
    follow_parent: options.FollowParent = False,
) -> None:
    """Tell clients where the workers are. Run as many as you like."""
    from fingerpost.proxy import Proxy, ProxyConfig

    start_logging(log_level)
    config = ProxyConfig(
        registry=registry, host=host, port=port, service=service, relay=relay, lease_s=lease
    )

    async def run() -> None:
        from fingerpost.deploy.lifetime import Lifetime

        async with Proxy(config) as serving:
            lifetime = Lifetime(follow_parent=follow_parent)
            logger.info("listening at %s, registry %s", serving.url, registry)
            await lifetime.wait()

    asyncio.run(run())
