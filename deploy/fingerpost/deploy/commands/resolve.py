"""`fingerpost resolve`: print where the workers of a model are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.deploy import options
from fingerpost.deploy.console import out, print_json
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options

if TYPE_CHECKING:
    from fingerpost.deploy.instance_diff import WatchEvent

__all__ = ["add_to"]

# A change of the list is seen at once; whether the registry is reachable, this often.
_CHECK_S: Final = 0.25


def add_to(app: typer.Typer) -> None:
    """Add the subcommand."""
    app.command()(takes_cluster_options(resolve))


def resolve(
    *,
    model: Annotated[str, typer.Argument(help="digits, digits@3 or digits@stable")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep running, and print a line for each change.")
    ] = False,
    json: options.Json = False,
    cluster: ClusterTarget,
) -> None:
    """Print the address of each healthy worker of a model, one on a line.

    With --watch, print workers that join, leave or change, and outages of the registry:

    fingerpost resolve digits --watch --json | jq .event
    """
    if watch:
        show = _print_json if json else _print_line
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_follow(cluster, model, show))
    else:
        asyncio.run(_once(cluster, model, json=json))


async def _once(cluster: ClusterTarget, model: str, *, json: bool) -> None:
    from fingerpost.errors import NoWorker

    async with cluster.client() as client:
        snapshot = await client.resolve(model)
    if json:
        print_json(snapshot)
    for instance in snapshot.instances:
        if not json:
            out.print(instance.address)
    if not snapshot.instances:
        raise NoWorker(f"no healthy worker serves {model} now")


async def _follow(cluster: ClusterTarget, model: str, show: Callable[[WatchEvent], None]) -> None:
    """Show each change until cancelled. A service that is not known yet is waited for.

    Raises:
        RegistryError: neither a proxy nor the registry answered at first.
    """
    from fingerpost.client import ClientConfig
    from fingerpost.deploy.instance_diff import InstanceDiff
    from fingerpost.registry import ModelReference

    reference = ModelReference.parse(model)
    diff = InstanceDiff(reference)
    resolver = cluster.resolver()
    try:
        watch = resolver.watch(reference.model)
        snapshot = await watch.ready(ClientConfig().wait_for_ready_s)
        while True:
            for event in diff.update(snapshot, watch.error, time.monotonic()):
                show(event)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(watch.changed(snapshot.index), _CHECK_S)
            snapshot = watch.view or snapshot
    finally:
        await resolver.aclose()


def _print_json(event: WatchEvent) -> None:
    import msgspec

    print_json({"time": _now(), **msgspec.to_builtins(event)})


def _print_line(event: WatchEvent) -> None:
    parts = [_now(), f"{event.event:8}"]
    if event.worker is not None:
        parts.append(event.worker.address)
        if event.changes:
            parts += [f"{name} {_text(a)} -> {_text(b)}" for name, (a, b) in event.changes.items()]
        else:
            parts.append(f"{_text(event.worker.versions)}  weight {event.worker.weight}")
        parts.append(event.worker.id)
    if event.message:
        parts.append(event.message)
    parts.append(f"(index {event.index}, age {event.age_s:.1f} s)")
    out.print("  ".join(parts))


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="milliseconds")
