"""`fingerpost drain` and `fingerpost undrain`: take a worker out of service, and put it back."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from fingerpost.deploy.console import out
from fingerpost.deploy.options.registry import takes_registry_options
from fingerpost.registry.config import RegistryConfig

__all__ = ["add_to"]

InstanceId = Annotated[
    str,
    typer.Argument(
        metavar="ID|HOST:PORT",
        help="The worker's id or address, as `fingerpost status` shows them. An address is all of "
        "its entries.",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add both subcommands."""
    app.command()(takes_registry_options(drain))
    app.command()(takes_registry_options(undrain))


def drain(
    *,
    instance: InstanceId,
    registry: str,
    reason: Annotated[
        str, typer.Option(help="The reason that Consul shows beside the worker.")
    ] = "drained",
    registry_config: RegistryConfig,
) -> None:
    """Send no new requests to a worker. It finishes those that it has, and keeps running."""
    asyncio.run(_set(instance, registry, registry_config, reason))
    out.print(f"{instance} gets no new requests; `fingerpost undrain {instance}` puts it back")


def undrain(
    *,
    instance: InstanceId,
    registry: str,
    registry_config: RegistryConfig,
) -> None:
    """Put a drained worker back into service."""
    asyncio.run(_set(instance, registry, registry_config, None))
    out.print(f"{instance} is back in service")


async def _set(
    instance: str, url: str, registry_config: RegistryConfig, reason: str | None
) -> None:
    from fingerpost.registry import open_registry

    registry = open_registry(url, registry_config)
    try:
        await registry.set_draining(instance, reason)
    finally:
        await registry.aclose()
