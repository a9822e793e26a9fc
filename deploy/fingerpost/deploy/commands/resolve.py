"""`fingerpost resolve`: step 1 by hand."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from fingerpost.deploy.commands import options
from fingerpost.deploy.commands.cluster_options import (
    ClusterConsul,
    ClusterProxy,
    ClusterRegistry,
    open_client,
)
from fingerpost.deploy.commands.registry_options import takes_registry_options
from fingerpost.deploy.console import out, print_json
from fingerpost.registry.options import RegistryOptions

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_registry_options(resolve))


def resolve(
    *,
    model: Annotated[str, typer.Argument(help="digits, digits@3 or digits@stable")],
    proxy: ClusterProxy = None,
    registry: ClusterRegistry = None,
    consul: ClusterConsul = False,
    json: options.Json = False,
    access: RegistryOptions,
) -> None:
    """Print the address of every healthy worker of a model, one a line."""
    from fingerpost.registry import NoWorker

    async def run() -> None:
        async with open_client(proxy, registry, consul=consul, access=access) as client:
            snapshot = await client.resolve(model)
        if json:
            print_json(snapshot)
        for instance in snapshot.instances:
            if not json:
                out.print(instance.address, markup=False)
        if not snapshot.instances:
            raise NoWorker(f"no healthy worker serves {model} now")

    asyncio.run(run())
