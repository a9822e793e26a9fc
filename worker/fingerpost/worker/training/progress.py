"""How a training run reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as _Bars

if TYPE_CHECKING:
    from rich.progress import TaskID

__all__ = ["Progress", "RichProgress", "SilentProgress"]


class Progress(Protocol):
    """Receives the progress of `train`, in the thread that called it.

    An exception raised here ends the run cleanly.
    """

    def begin(self, stage: str, total: int | None) -> None:
        """Start a stage; the stage before it has ended.

        Args:
            stage: its name, a few words (`reading images`).
            total: its number of units, or None where that is not known. A stage may end before
                all of them are done, as training does when it no longer gets better.
        """
        ...

    def advance(self, units: int) -> None:
        """Count `units` more units of the current stage as done."""
        ...

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """Report an epoch that ended; `number` starts at 1, accuracies are 0 to 1."""
        ...


class SilentProgress:
    """Reports nothing."""

    def begin(self, stage: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, units: int) -> None:
        """Do nothing."""

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """Do nothing."""


class RichProgress:
    """One progress bar per stage on the terminal.

    A context manager, so that the terminal's cursor is shown again at the end.

    Args:
        console: where to draw; by default standard error, so that standard output stays free.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bars = _Bars(
            TextColumn("{task.description:<15}", markup=False),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console or Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, stage: str, total: int | None) -> None:
        """Draw a new bar below the last one, whose clock stops."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = self._bars.add_task(stage, total=total, figures="")

    def advance(self, units: int) -> None:
        """Advance the current bar."""
        if self._task is not None:
            self._bars.advance(self._task, units)

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """Write the figures of the epoch to the right of the current bar."""
        if self._task is not None:
            del loss, accuracy  # 80 columns have room for what matters
            figures = f"epoch {number}, accuracy {val_accuracy:.1%}"
            self._bars.update(self._task, figures=figures)
