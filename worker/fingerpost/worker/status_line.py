"""What a worker does now, on one line, for its service manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.registry import WorkerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.registry import Instance, LoadReport

__all__ = ["status_line"]

_MOST_MODELS = 8


def status_line(instances: Sequence[Instance], load: LoadReport) -> str:
    """The state, what is served where, and how much is in flight.

    Args:
        instances: what is registered.
        load: the current load report.
    """
    if load.state is WorkerState.FAILED:
        state = "stalled: a batch, or every decoder, has been at the same for too long"
    elif load.state is WorkerState.DRAINING:
        state = "draining"
    else:
        state = "serving"
    served = [f"{m.name}@{','.join(m.versions)}" for each in instances for m in each.models]
    shown = ", ".join(served[:_MOST_MODELS]) or "no model"
    if more := len(served) - _MOST_MODELS:
        shown += f" and {more} more" if more > 0 else ""
    where = f" at {instances[0].address}" if instances else ""
    return f"{state} {shown}{where}; {load.rif} in flight"
