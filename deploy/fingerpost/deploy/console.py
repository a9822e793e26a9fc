"""Output of the command: results on standard output, everything else on standard error.

Both consoles show text from peers, registrations, files and file names as it is: they parse no
markup and no `:emoji:` names, and escape control characters, newlines among them (see `printable`).
Text of several lines is printed line by line. Nothing else in the command writes to a terminal, so
that no caller has to remember this.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec
from rich.console import Console
from rich.segment import Segment
from rich.status import Status
from rich.text import Text

from fingerpost.basics.printable import printable, printable_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import ConsoleOptions, RenderableType
    from rich.table import Table

__all__ = ["SafeConsole", "err", "out", "print_json", "safe_text", "table_of_figures"]


def safe_text(value: object) -> Text:
    """Text of one line for the terminal, whose content nobody interprets."""
    return Text(printable(value))


class SafeConsole(Console):
    """A console that interprets nothing in what it prints; arguments as of Rich's `Console`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Make a `Text` of a string, also of those in tables, with all of it shown as it is."""
        plain: dict[str, Any] = {**options, "markup": False, "emoji": False}
        return super().render_str(printable(text), **plain)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Escape what did not come through `render_str`, such as the text of a progress bar."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text.isprintable():
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n"), segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As Rich's, but strings, here and in `update`, are not parsed as markup."""
        return _SafeStatus(status, console=self, **options)


class _SafeStatus(Status):
    """A status line that parses no markup; Rich's does, whatever its console."""

    def __init__(self, status: RenderableType, **options: Any) -> None:
        super().__init__(safe_text(status) if isinstance(status, str) else status, **options)

    def update(self, status: RenderableType | None = None, **options: Any) -> None:
        super().update(safe_text(status) if isinstance(status, str) else status, **options)


# Rich assumes that a pipe is 80 columns wide, and cuts tables off; a pipe has no width.
out = SafeConsole(
    soft_wrap=True, width=None if sys.stdout is not None and sys.stdout.isatty() else 1000
)
err = SafeConsole(stderr=True, soft_wrap=True)


def table_of_figures(first: str, *columns: str) -> Table:
    """An empty table of names and figures, aligned for people; without a head where `first` is."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=bool(first))
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def print_json(value: Any) -> None:
    """Print one JSON document on one line, and flush it, so that a pipe gets it at once."""
    sys.stdout.write(printable_json(msgspec.json.encode(value).decode()) + "\n")
    sys.stdout.flush()
