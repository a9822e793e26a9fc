"""Tests in several processes: which go together, and which have the machine to themselves.

`make test` runs two processes (pytest-xdist). All tests of a module run in the same one, and so do
all that share a fixture which takes long, so that it is made once. What measures speed is marked
`alone`, and waits until the test beside it has ended.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["Turns", "group_of", "place_of"]

# Fixtures that take 5 to 60 s, those first that most of the time goes into.
_SHARED = ("demo", "models", "consul_cluster", "secured_cluster", "zookeeper_url", "colours")


def group_of(item: pytest.Item) -> str:
    """The name of the tests that must run in one process with this one."""
    fixtures = getattr(item, "fixturenames", ())
    for name in _SHARED:
        if name in fixtures:
            return name
    return item.path.relative_to(item.config.rootpath).as_posix()


def place_of(item: pytest.Item) -> int:
    """Where in the order a test's group stands: what takes longest is begun first."""
    group = group_of(item)
    return _SHARED.index(group) if group in _SHARED else len(_SHARED)


class Turns:
    """Locks that let the tests of several processes run side by side, or one of them alone.

    Args:
        folder: that the processes have in common; None where there is one process only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for the turn of a test."""
        if self._folder is None:
            yield
            return
        # Whoever wants to be alone keeps the gate closed while it waits for those inside to end.
        with (self._folder / "gate").open("a") as gate, (self._folder / "room").open("a") as room:
            how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.flock(gate, how)
            fcntl.flock(room, how)
            if not alone:
                fcntl.flock(gate, fcntl.LOCK_UN)
            yield
