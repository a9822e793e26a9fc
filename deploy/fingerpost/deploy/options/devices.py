"""The options of `fingerpost worker` that choose its devices."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from fingerpost.worker.backends.base import LoadConfig
    from fingerpost.worker.backends.devices import Placement

__all__ = [
    "Device",
    "Devices",
    "MemoryFraction",
    "ProcessesPerDevice",
    "load_config",
    "placements",
]

_DEVICES: Final = "Devices"

Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda:N|UUID|gpu:N|npu",
        help="Device for the model; auto is the first GPU, or the CPU. "
        "gpu:N and npu are OpenVINO's.",
        rich_help_panel=_DEVICES,
    ),
]
MemoryFraction = Annotated[
    float | None,
    typer.Option(
        metavar="F",
        help="Share of the GPU's memory to reserve, up to 1; by default as much as is needed.",
        rich_help_panel=_DEVICES,
        show_default=False,
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        metavar="all|none|0,1,...",
        help="Run a process on each of these GPUs, by number or UUID; none is the CPU.",
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
        help="Processes that share each device and --memory-fraction (or 0.9) of its memory.",
        rich_help_panel=_DEVICES,
    ),
]


def placements(
    device: str, devices: str | None, processes_per_device: int, memory_fraction: float | None
) -> tuple[Placement, ...]:
    """The device of each process that these options ask for; a single one is this process.

    Raises:
        ConfigurationError: a device does not exist.
    """
    from fingerpost.worker.backends.devices import find_gpus, place_processes, visible_gpus

    return place_processes(
        device,
        devices,
        visible_gpus(find_gpus(), os.environ),
        processes=processes_per_device,
        memory_fraction=memory_fraction,
    )


def load_config(device: str) -> LoadConfig:
    """The settings for `--device`; limits this process and its children to that device."""
    from fingerpost.worker.backends.devices import find_gpus, place, visible_gpus

    placement = place(device, visible_gpus(find_gpus(), os.environ))
    os.environ.update(placement.environment())
    return placement.load_config()
