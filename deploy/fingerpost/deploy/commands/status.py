"""`fingerpost status`: show the services, workers and load of a cluster."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import out, print_json
from fingerpost.deploy.instance_diff import versions
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options

if TYPE_CHECKING:
    from rich.table import Table

    from fingerpost.client import Client
    from fingerpost.registry import Instance, LoadReport, Snapshot
    from fingerpost.registry.load_client import LoadClient

__all__ = ["add_to"]

# Of one worker, and how many are asked at once.
_TIMEOUT_S: Final = 1.0
_CONCURRENT: Final = 100


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(status))


def status(
    *,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh the display until Ctrl-C.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, help="With --watch, seconds between two updates.")
    ] = 1.0,
    json: options.Json = False,
    cluster: ClusterTarget,
) -> None:
    """Show every service and worker, with the load that each worker reports.

    With --json and --watch, print one line of JSON for each update.
    """

    async def run() -> None:
        from fingerpost.registry.load_client import LoadClient

        async with (
            cluster.client() as client,
            LoadClient(timeout_s=_TIMEOUT_S, max_concurrent=_CONCURRENT) as loads,
        ):
            first = await _read_cluster(client, loads)
            if not watch:
                _show(first, json=json)
            elif json:
                await _repeat(first, client, loads, interval, lambda view: _show(view, json=True))
            else:
                from rich.live import Live

                with Live(first.table(), console=out, auto_refresh=False, screen=True) as live:
                    await _repeat(
                        first,
                        client,
                        loads,
                        interval,
                        lambda view: live.update(view.table(), refresh=True),
                    )

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        if not watch:
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClusterView:
    """The cluster at one moment; `loads` has None for a worker that did not answer."""

    snapshots: list[Snapshot]
    loads: dict[str, LoadReport | None]
    at: float

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {
                "service": snapshot.service,
                "age_s": round(snapshot.age_s(self.at), 3),
                "workers": [
                    {
                        "id": each.id,
                        "address": each.address,
                        "zone": each.zone,
                        "weight": each.weight,
                        "models": each.models,
                        "meta": each.meta,
                        "load": self.loads[each.id],
                    }
                    for each in snapshot.instances
                ],
            }
            for snapshot in self.snapshots
        ]

    def problems(self) -> list[str]:
        """The models that workers could not load, and why."""
        return [
            f"{snapshot.service} at {each.address}: {each.meta['load-error']}"
            for snapshot in self.snapshots
            for each in snapshot.instances
            if "load-error" in each.meta
        ]

    def table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        right = {"IN FLIGHT", "QUEUED MB", "AGE"}
        for name in ("SERVICE", "WORKER", "VERSION", "STATE", "IN FLIGHT", "QUEUED MB", "AGE",
                     "DEVICE", "ID"):  # fmt: skip
            table.add_column(
                name,
                justify="right" if name in right else "left",
                no_wrap=name != "ID",
                overflow="fold",
            )
        for snapshot in self.snapshots:
            age = f"{snapshot.age_s(self.at):.0f} s"
            if not snapshot.instances:
                table.add_row(snapshot.service, "none healthy", "", "", "", "", age)
            for each in snapshot.instances:
                load = self.loads[each.id]
                table.add_row(
                    snapshot.service,
                    each.address,
                    ", ".join(versions(each)),
                    load.state.name.lower() if load else "no answer",
                    str(load.rif) if load else "",
                    f"{load.queued_cost:.1f}" if load else "",
                    age,
                    each.meta.get("device", ""),
                    each.id,
                )
        return table


async def _repeat(
    view: _ClusterView, client: Client, load_client: LoadClient, pause_s: float, show: Any
) -> None:
    while True:
        show(view)
        await asyncio.sleep(pause_s)
        view = await _read_cluster(client, load_client)


async def _read_cluster(client: Client, load_client: LoadClient) -> _ClusterView:
    """Ask the registry or the proxy for the workers, and each worker for its load."""
    from fingerpost.errors import PeerError

    async def ask(instance: Instance) -> LoadReport | None:
        try:
            return await load_client.get(instance)
        except PeerError:
            return None

    snapshots = [await client.resolve(name) for name in await client.services()]
    instances = [each for snapshot in snapshots for each in snapshot.instances]
    reports = await asyncio.gather(*(ask(instance) for instance in instances))
    loads = {each.id: report for each, report in zip(instances, reports, strict=True)}
    return _ClusterView(snapshots=snapshots, loads=loads, at=time.monotonic())


def _show(view: _ClusterView, *, json: bool) -> None:
    if json:
        print_json(view.as_json())
    elif not view.snapshots:
        out.print("No service is registered. Start one: fingerpost worker --model models/NAME")
    else:
        out.print(view.table())
        for line in view.problems():
            out.print(line)
