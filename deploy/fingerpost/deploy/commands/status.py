"""`fingerpost status`: what the cluster looks like now."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import typer

from fingerpost.deploy.commands import options
from fingerpost.deploy.commands.cluster_options import (
    ClusterConsul,
    ClusterProxy,
    ClusterRegistry,
    open_client,
)
from fingerpost.deploy.console import out, print_json

if TYPE_CHECKING:
    from fingerpost.registry import Instance, LoadReport, Snapshot

__all__ = ["add_to"]

_TIMEOUT_S = 1.0


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(status)


def status(
    proxy: ClusterProxy = None,
    registry: ClusterRegistry = None,
    consul: ClusterConsul = False,
    json: options.Json = False,
) -> None:
    """Show every service and worker, and what each worker says of its load."""

    async def run() -> None:
        async with open_client(proxy, registry, consul=consul) as client:
            snapshots = [await client.resolve(name) for name in await client.services()]
        instances = [each for snapshot in snapshots for each in snapshot.instances]
        loads = await _ask_loads(instances)
        if json:
            print_json([_as_json(snapshot, loads) for snapshot in snapshots])
        else:
            _print_table(snapshots, loads)

    asyncio.run(run())


async def _ask_loads(instances: list[Instance]) -> dict[str, LoadReport | None]:
    """Each worker's own word, None for one that does not answer within a second."""
    import msgspec
    from aiohttp import ClientError, ClientSession, ClientTimeout

    from fingerpost.registry import LoadReport

    async def ask(session: ClientSession, instance: Instance) -> LoadReport | None:
        try:
            async with session.get(f"{instance.url}/load") as response:
                return msgspec.json.decode(await response.read(), type=LoadReport)
        except (ClientError, TimeoutError, msgspec.MsgspecError):
            return None

    async with ClientSession(timeout=ClientTimeout(total=_TIMEOUT_S)) as session:
        reports = await asyncio.gather(*(ask(session, instance) for instance in instances))
    return {each.id: report for each, report in zip(instances, reports, strict=True)}


def _as_json(snapshot: Snapshot, loads: dict[str, LoadReport | None]) -> dict[str, Any]:
    return {
        "service": snapshot.service,
        "age_s": round(snapshot.age_s(time.monotonic()), 3),
        "workers": [
            {
                "id": each.id,
                "address": each.address,
                "models": each.models,
                "meta": each.meta,
                "load": loads[each.id],
            }
            for each in snapshot.instances
        ],
    }


def _print_table(snapshots: list[Snapshot], loads: dict[str, LoadReport | None]) -> None:
    from rich.table import Table

    if not snapshots:
        out.print("No service is registered. Start one: fingerpost worker --model models/NAME")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("SERVICE", "WORKER", "VERSION", "STATE", "IN FLIGHT", "FRAMEWORK", "DEVICE"):
        table.add_column(column, justify="right" if column == "IN FLIGHT" else "left")
    for snapshot in snapshots:
        if not snapshot.instances:
            table.add_row(snapshot.service, "none healthy")
        for each in snapshot.instances:
            load = loads[each.id]
            table.add_row(
                snapshot.service,
                each.address,
                ", ".join(version for model in each.models for version in model.versions),
                load.state.name.lower() if load else "no answer",
                str(load.rif) if load else "",
                each.meta.get("framework", ""),
                each.meta.get("device", ""),
            )
    out.print(table)
