"""What the command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec
from rich.console import Console

from fingerpost.errors import ConfigurationError

__all__ = ["err", "out", "print_json", "start_logging"]

# Rich takes a pipe for 80 columns wide and cuts tables off; a pipe has any width.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on one line, flushed, so that a pipe sees it at once."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def start_logging(level: str) -> None:
    """Log to standard error, one line a message, from this level on.

    Raises:
        ConfigurationError: `level` is not the name of one.
    """
    if level.upper() not in logging.getLevelNamesMapping():
        raise ConfigurationError(f"--log-level {level}: use debug, info, warning or error")
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
