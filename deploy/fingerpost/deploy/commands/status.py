"""`fingerpost status`: show the services, workers and load of a cluster."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from fingerpost.basics.printable import printable
from fingerpost.deploy import options
from fingerpost.deploy.console import out, print_json, safe_text
from fingerpost.deploy.instance_diff import versions
from fingerpost.deploy.options.cluster import ClusterTarget, takes_cluster_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from fingerpost.client.proxy_answers import Unlisted
    from fingerpost.client.resolver import Resolver
    from fingerpost.errors import FingerpostError
    from fingerpost.registry import Instance, LoadReport, Snapshot
    from fingerpost.registry.load_client import LoadClient

__all__ = ["add_to"]

# Of one worker, and how many are asked at once.
_TIMEOUT_S: Final = 1.0
_CONCURRENT: Final = 100

_COLUMNS: Final = (
    "SERVICE", "WORKER", "VERSION", "STATE", "IN FLIGHT", "QUEUED MB", "AGE", "DEVICE", "ID"
)  # fmt: skip
_NUMBERS: Final = frozenset({"IN FLIGHT", "QUEUED MB", "AGE"})
_ANY_WIDTH: Final = 100_000
# `sha256:` and 12 digits; --json has all.
_DIGEST_LETTERS: Final = 19


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

    With --json and --watch, print one line of JSON for each update: a list of services, or an
    object with the error while the cluster cannot be asked.
    """

    async def run() -> None:
        from fingerpost.registry.load_client import LoadClient
        from fingerpost.security.tls import ClientTls

        async with (
            aclosing(cluster.resolver()) as resolver,
            LoadClient(
                timeout_s=_TIMEOUT_S, max_concurrent=_CONCURRENT, tls=ClientTls(cluster.tls)
            ) as loads,
        ):
            reader = _ClusterReader(resolver, loads)
            first = await reader.read()
            if not watch:
                _show(first, json=json)
            elif json:
                await _repeat(first, reader, interval, _show_json)
            else:
                from rich.live import Live

                def update(view: _ClusterView, error: FingerpostError | None) -> None:
                    live.update(view.rendered(error), refresh=True)

                with Live(first.rendered(), console=out, auto_refresh=False, screen=True) as live:
                    await _repeat(first, reader, interval, update)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        if not watch:
            raise


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClusterView:
    """The cluster at one moment; `loads` has None for a worker that did not answer.

    `unlisted` has, for each service, the workers that are registered but not listed; `of_proxy`
    says what is wrong with the proxy that answered.
    """

    snapshots: list[Snapshot]
    unlisted: dict[str, Unlisted]
    loads: dict[str, LoadReport | None]
    at: float
    of_proxy: tuple[str, ...] = ()

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
                "withdrawn": self.unlisted[snapshot.service].withdrawn,
                "failing": self.unlisted[snapshot.service].failing,
                "rejected": self.unlisted[snapshot.service].rejected,
            }
            for snapshot in self.snapshots
        ]

    def problems(self) -> list[str]:
        """What is wrong with the proxy, the checks that fail, and the models that do not load."""
        failing = [
            f"{snapshot.service}: the registry's check of {id_} at {why} (if the registry cannot "
            "reach it: start the worker with another --advertise, or with --check ttl)"
            for snapshot in self.snapshots
            for id_, why in self.unlisted[snapshot.service].failing.items()
        ]
        failing += [
            f"{snapshot.service}: the entry {id_} is left out: {why}"
            for snapshot in self.snapshots
            for id_, why in self.unlisted[snapshot.service].rejected.items()
        ]
        return [*self.of_proxy, *failing] + [
            f"{snapshot.service} at {each.address}: {each.meta['load-error']}"
            for snapshot in self.snapshots
            for each in snapshot.instances
            if "load-error" in each.meta
        ]

    def rendered(self, error: FingerpostError | None = None) -> RenderableType:
        """The table, or lists where the terminal is too narrow for it; then what is wrong.

        An id is never broken or cut, because `fingerpost drain` needs it whole.
        """
        from rich.console import Group
        from rich.text import Text

        table = self._table()
        width = out.measure(table, options=out.options.update(max_width=_ANY_WIDTH)).maximum
        parts: list[RenderableType] = [table if width <= out.width else self._lists()]
        parts += map(safe_text, self.problems())
        if error is not None:
            since = f"{time.monotonic() - self.at:.0f} s"
            parts.insert(0, Text(f"no news for {since}, this is the last: {error}", style="bold"))
        return Group(*parts)

    def _rows(self) -> Iterator[tuple[str, ...]]:
        """The cells of each row, in the order of `_COLUMNS`."""
        for snapshot in self.snapshots:
            age = f"{snapshot.age_s(self.at):.0f} s"
            withdrawn = self.unlisted[snapshot.service].withdrawn
            if not snapshot.instances:
                yield (snapshot.service, "none healthy", "", "", "", "", age, "", "")
            for each in snapshot.instances:
                load = self.loads[each.id]
                yield (
                    snapshot.service,
                    each.address,
                    ", ".join((*versions(each), *_short_digest(each))),
                    _state(each, load),
                    str(load.rif) if load else "",
                    f"{load.queued_cost:.1f}" if load else "",
                    age,
                    each.meta.get("device", ""),
                    each.id,
                )
            rejected = self.unlisted[snapshot.service].rejected
            for id_ in (*withdrawn, *(each for each in rejected if each not in withdrawn)):
                state = "left out" if id_ in rejected else "drained, or not well"
                yield (snapshot.service, "-", "", state, "", "", age, "", id_)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for name in _COLUMNS:
            table.add_column(
                name, justify="right" if name in _NUMBERS else "left", no_wrap=True, overflow="fold"
            )
        for row in self._rows():
            table.add_row(*row)
        return table

    def _lists(self) -> Text:
        """Of each worker the service and address, the other cells, and the id on its own line."""
        from rich.text import Text

        lines = []
        for service, worker, version, state, rif, queued, age, device, id_ in self._rows():
            lines.append(f"{service}  {worker}")
            cells = (
                state,
                version and f"version {version}",
                rif and f"{rif} in flight",
                queued and f"{queued} MB queued",
                age,
                device,
            )
            lines.append("  " + ", ".join(each for each in cells if each))
            if id_:
                lines.append(f"  {id_}")
        return Text("\n".join(map(printable, lines)), overflow="fold")


def _state(instance: Instance, load: LoadReport | None) -> str:
    if instance.foreign:
        return f"foreign ({instance.protocol})"
    return load.state.name.lower() if load else "no answer"


def _short_digest(instance: Instance) -> tuple[str, ...]:
    """What is enough of the default version's digest to compare two workers."""
    digest = instance.meta.get("digest", "")
    return (digest[:_DIGEST_LETTERS],) if digest else ()


async def _repeat(
    view: _ClusterView,
    reader: _ClusterReader,
    pause_s: float,
    show: Callable[[_ClusterView, FingerpostError | None], None],
) -> None:
    """Show the cluster again and again; in an outage what was known, and why there is no more."""
    from fingerpost.errors import FingerpostError

    error: FingerpostError | None = None
    while True:
        show(view, error)
        await asyncio.sleep(pause_s)
        try:
            view, error = await reader.read(), None
        except FingerpostError as failure:
            error = failure


class _ClusterReader:
    """Reads the cluster, and asks each of its workers."""

    def __init__(self, resolver: Resolver, load_client: LoadClient) -> None:
        self._resolver = resolver
        self._load_client = load_client

    async def read(self) -> _ClusterView:
        """Ask the registry or the proxy for the workers, and each worker for its load."""
        from fingerpost.client import ClientConfig

        found = await self._resolver.overview(ClientConfig().wait_for_ready_s)
        unlisted = {snapshot.service: workers for snapshot, workers in found}
        snapshots = [snapshot for snapshot, _ in found if snapshot.known]
        instances = [each for snapshot in snapshots for each in snapshot.instances]
        reports = await asyncio.gather(*map(self._ask, instances))
        loads = {each.id: report for each, report in zip(instances, reports, strict=True)}
        return _ClusterView(
            snapshots=snapshots,
            unlisted=unlisted,
            loads=loads,
            at=time.monotonic(),
            of_proxy=self._resolver.problems,
        )

    async def _ask(self, instance: Instance) -> LoadReport | None:
        from fingerpost.errors import PeerError

        try:
            return await self._load_client.get(instance)
        except PeerError:
            return None


def _show(view: _ClusterView, *, json: bool) -> None:
    if json:
        print_json(view.as_json())
    elif not view.snapshots:
        out.print("No service is registered. Start one: fingerpost worker --model models/NAME")
    else:
        out.print(view.rendered())


def _show_json(view: _ClusterView, error: FingerpostError | None) -> None:
    """A line for each update: the list of services, or an object with the error."""
    if error is None:
        print_json(view.as_json())
    else:
        print_json({"error": {"code": error.code, "message": error.message}})
