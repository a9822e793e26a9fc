"""Be a user who may not enter the folders of this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["kept_out"]

_NOBODY = 65534


@contextmanager
def kept_out(folder: Path) -> Iterator[None]:
    """Inside the `with` block this process, also as root, cannot use what is in the folder."""
    mode = folder.stat().st_mode
    folder.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
