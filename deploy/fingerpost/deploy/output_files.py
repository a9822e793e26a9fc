"""The files that a command is to write at its end, checked before its work begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from fingerpost.deploy.console import print_json
from fingerpost.errors import ConfigurationError

__all__ = ["ReportFiles", "check_writable"]

_Report = TypeVar("_Report")


def check_writable(path: Path) -> None:
    """Check that a file can be written there; `-`, standard output, always can.

    Raises:
        ConfigurationError: it cannot.
    """
    target = path if path.exists() else path.parent
    if path != Path("-") and (path.is_dir() or not os.access(target, os.W_OK)):
        raise ConfigurationError(
            f"{path} cannot be written: give a file in a folder that you may write to"
        )


class ReportFiles:
    """Where a command writes its report: as JSON, as a plot, or for people on standard output.

    Args:
        json: the JSON's file; `-` is standard output, and nothing else is written there then.
        plot: the plot's file.

    Raises:
        ConfigurationError: one cannot be written, or the plot is of another kind than can be drawn.
        MissingDependency: a plot needs matplotlib.
    """

    def __init__(self, json: Path | None, plot: Path | None) -> None:
        from fingerpost.deploy.load_test.plot import check_plot

        for path in filter(None, (json, plot)):
            check_writable(path)
        if plot is not None:
            check_plot(plot)
        self._json, self._plot = json, plot

    def write(
        self,
        report: _Report,
        *,
        draw: Callable[[Path, _Report], None],
        show: Callable[[_Report], None],
    ) -> None:
        """Write a report.

        Args:
            report: what `msgspec` can encode.
            draw: draws it into a file.
            show: prints it for people.
        """
        if self._plot is not None:
            draw(self._plot, report)
        if self._json == Path("-"):
            print_json(report)
            return
        if self._json is not None:
            self._json.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")
        show(report)
