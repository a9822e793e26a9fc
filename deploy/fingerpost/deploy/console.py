"""Output of the command: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
from rich.console import Console

from fingerpost.errors import ConfigurationError

__all__ = ["err", "out", "print_json", "start_logging"]

# Rich assumes that a pipe is 80 columns wide, and cuts tables off; a pipe has no width.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document on one line, and flush it, so that a pipe gets it at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def start_logging(level: str) -> None:
    """Log messages of this level and above to standard error, one line each.

    Raises:
        ConfigurationError: `level` is not the name of a level.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"--log-level {level}: use debug, info, warning or error")
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
