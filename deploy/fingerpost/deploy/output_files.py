"""Checks of the files that a command is to write at its end, before its work begins."""

from __future__ import annotations

import os
from pathlib import Path

from fingerpost.errors import ConfigurationError

__all__ = ["check_writable"]


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
