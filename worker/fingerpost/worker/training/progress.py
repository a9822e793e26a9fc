"""How a training run says how far it is."""

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
    """Told by `train`, from the thread that called it; an exception ends the run cleanly."""

    def begin(self, stage: str, total: int | None) -> None:
        """A stage begins, and the one before it has ended.

        Args:
            stage: what is done now, in a few words (`reading images`).
            total: how many units it has, or None where that cannot be told; a stage may end
                before all of them are done, as training does when it no longer gets better.
        """
        ...

    def advance(self, units: int) -> None:
        """That many more units of the present stage are done."""
        ...

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """An epoch of training ended; numbers begin at 1, accuracies are shares of 1."""
        ...


class SilentProgress:
    """Says nothing."""

    def begin(self, stage: str, total: int | None) -> None:
        """Do nothing."""

    def advance(self, units: int) -> None:
        """Do nothing."""

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """Do nothing."""


class RichProgress:
    """One bar per stage on the terminal; a context manager, so that the cursor comes back.

    Args:
        console: where to draw; by default standard error, so that standard output stays free.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._bars = _Bars(
            TextColumn("{task.description:<15}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=console or Console(stderr=True),
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, stage: str, total: int | None) -> None:
        """Draw a new bar beneath the last one, whose clock stops."""
        if self._task is not None:
            self._bars.stop_task(self._task)
        self._task = self._bars.add_task(stage, total=total, figures="")

    def advance(self, units: int) -> None:
        """Move the present bar on."""
        if self._task is not None:
            self._bars.advance(self._task, units)

    def epoch(self, number: int, *, loss: float, accuracy: float, val_accuracy: float) -> None:
        """Write the epoch's figures behind the present bar."""
        if self._task is not None:
            del loss, accuracy  # 80 columns have room for what matters
            figures = f"epoch {number}, accuracy {val_accuracy:.1%}"
            self._bars.update(self._task, figures=figures)
