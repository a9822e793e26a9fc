"""The options of `fingerpost worker` that say on which devices it runs, and how it is watched."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from fingerpost.deploy.console import err

if TYPE_CHECKING:
    from fingerpost.worker.backends.devices import Placement

__all__ = [
    "AccessLogFile",
    "Device",
    "Devices",
    "MemoryFraction",
    "ProcessesPerDevice",
    "Tracing",
    "placements",
    "run_on_each",
]

_DEVICES: Final = "Devices"
_WATCHING: Final = "Observing"

Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda:N|UUID",
        help="Where the model runs; auto is the first GPU, or the CPU.",
        rich_help_panel=_DEVICES,
    ),
]
MemoryFraction = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="Share of the GPU's memory to take, up to 1; by default as much as is needed.",
        rich_help_panel=_DEVICES,
        show_default=False,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="all|none|0,1,...",
        help="One process for each of these GPUs, by number or UUID; none is the CPU.",
        rich_help_panel=_DEVICES,
        show_default=False,
    ),
]
ProcessesPerDevice = Annotated[
    int,
    typer.Option(
        min=1,
        max=64,
        metavar="N",
        help="Processes that share each device, and --memory-fraction (0.9) of its memory.",
        rich_help_panel=_DEVICES,
    ),
]
AccessLogFile = Annotated[
    str | None,
    typer.Option(
        "--access-log",
        envvar="FINGERPOST_ACCESS_LOG",
        metavar="-|FILE",
        help="Write a line of JSON for each request; - is standard output.",
        rich_help_panel=_WATCHING,
        show_default=False,
    ),
]
Tracing = Annotated[
    bool,
    typer.Option(
        "--tracing",
        help="Send OpenTelemetry traces, as the OTEL_... variables say; on where those name a "
        "collector.",
        rich_help_panel=_WATCHING,
    ),
]


def placements(
    device: str, devices: str | None, processes_per_device: int, memory_fraction: float | None
) -> tuple[Placement, ...]:
    """Where each process goes that these options ask for; a single one is this process.

    Raises:
        ConfigurationError: no such device.
    """
    from fingerpost.worker.backends.devices import find_gpus, place_processes, visible_gpus

    return place_processes(
        device,
        devices,
        visible_gpus(find_gpus(), os.environ),
        processes=processes_per_device,
        memory_fraction=memory_fraction,
    )


def run_on_each(
    chosen: Sequence[Placement], *, port: int, threads: int, grace_s: float, follow_parent: bool
) -> None:
    """Run `fingerpost worker` again for each placement, until SIGTERM; then drain all of them.

    Args:
        threads: `--threads`. Where it is 0, processes that share the CPU share its cores too.
        grace_s: how long a process may take to drain.

    Raises:
        ConfigurationError: none of them can run.
    """
    from fingerpost.deploy.processes.device_workers import DeviceWorkers
    from fingerpost.deploy.processes.signals import Lifetime

    arguments = sys.argv[sys.argv.index("worker") + 1 :]
    if not threads and chosen[0].gpu is None:
        arguments += ["--threads", str(max(1, (os.cpu_count() or 1) // len(chosen)))]

    async def run() -> None:
        lifetime = Lifetime(follow_parent=follow_parent)
        workers = DeviceWorkers(chosen, arguments, port=port, grace_s=grace_s, say=_say)
        async with workers:
            ending = asyncio.create_task(lifetime.wait())
            running = asyncio.create_task(workers.run())
            try:
                await asyncio.wait((ending, running), return_when=asyncio.FIRST_COMPLETED)
                if running.done():
                    running.result()
            finally:
                ending.cancel()
                running.cancel()
                await asyncio.gather(ending, running, return_exceptions=True)

    asyncio.run(run())


def _say(name: str, line: str) -> None:
    """Pass a line on; one of the access log as it is, for what reads standard output."""
    if line.startswith('{"time":'):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    else:
        err.print(f"{name} | {line}", markup=False)
