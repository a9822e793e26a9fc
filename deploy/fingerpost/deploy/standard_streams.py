"""Standard streams that the starting process has closed, as some supervisors do (`>&- 2>&-`)."""

from __future__ import annotations

import os
import sys

from fingerpost.errors import ConfigurationError

__all__ = ["check_output", "discard_output", "open_standard_streams"]

_closed: list[int] = []


def open_standard_streams() -> None:
    """Open what is closed of standard input, output and error on the null device.

    Otherwise the next socket would get the free descriptor, and what a library prints would go to
    a client; and Python has no `sys.stderr`, so that the process would end without a word.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.append(descriptor)
            os.open(os.devnull, os.O_RDWR)  # the lowest one that is free, which is this one
            os.set_inheritable(descriptor, True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            descriptor = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def check_output() -> None:
    """Raise `ConfigurationError` if standard output was closed at the start.

    For commands whose results go there: they would be lost, and the exit status would say that all
    is well.
    """
    if 1 in _closed:
        raise ConfigurationError(
            "standard output is closed, and the results would be lost: redirect it to /dev/null if "
            "only the exit status is wanted"
        )


def discard_output() -> None:
    """Let standard output go nowhere from now on, because it cannot be written.

    Python would write again what is left in its buffer as it ends, and show that error, too.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
