"""A copy of a model's files that nobody but the worker's own user can change."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path

__all__ = ["PrivateCopy"]


class PrivateCopy:
    """A folder of mode 0700 in the system's folder for temporary files (`TMPDIR`).

    It is removed by `remove`, when nothing refers to this object any more, and when the process
    ends; a killed process leaves it behind.

    Attributes:
        folder: the folder.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fingerpost-model-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        self._remove()
