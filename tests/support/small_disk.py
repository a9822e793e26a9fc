"""A disk that is soon full: a real one for root, and small files for others, who mount none."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

__all__ = ["small_disk"]


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Callable[[], None]]:
    """A disk of that size at `folder`; call what it gives to remove the file `filler` from it."""
    folder.mkdir()
    if os.geteuid() == 0:
        subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder], check=True
        )
        try:
            yield (folder / "filler").unlink
        finally:
            subprocess.run(["/bin/umount", "--lazy", folder], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024 // 4, hard))
    real = os.statvfs

    def room(path: Any) -> Any:
        if not Path(path).is_relative_to(folder):
            return real(path)
        used = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
        free = max(0, kilobytes * 1024 - used) // 4096
        return SimpleNamespace(f_flag=0, f_bavail=free, f_frsize=4096, f_ffree=100)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "statvfs", room)
            yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
