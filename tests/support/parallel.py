"""Tests in several processes: which go together, and which have the machine to themselves.

`make test` runs three processes (pytest-xdist). All tests of a module run in the same one, and so
do all modules that share a fixture which takes long, so that it is made once. What measures speed
is marked `alone`, and waits until the tests beside it have ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.kinds import takes_long

__all__ = ["ByGroup", "Turns", "folder_of", "place_of"]

_ROOT = Path(__file__).parents[2]
# Fixtures that take 5 to 60 s, those first whose tests take longest.
_SHARED = ("demo", "models", "consul_cluster", "secured_cluster", "zookeeper_url", "colours")
_USES = {
    name: re.compile(rf"^ *(?:async )?def \w+\([^()]*\b{name}\b[:,)\s]", re.MULTILINE)
    for name in _SHARED
}


def folder_of(config: pytest.Config) -> tuple[Path, bool]:
    """A folder that all processes of this run have in common; and whether there are several."""
    several = hasattr(config, "workerinput")
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (base.parent if several else base), several


@functools.cache
def _group_of(module: str) -> str:
    """The modules that must run in one process with this one, which is a path: a name of them."""
    text = (_ROOT / module).read_text("utf-8")
    return next((name for name, use in _USES.items() if use.search(text)), module)


def place_of(module: Path) -> int:
    """Where in the order a module stands: what takes longest is begun first.

    What simulates comes last: the simulations run in the background from the beginning.
    """
    if "@simulates(" in module.read_text("utf-8"):
        return len(_SHARED) + 2
    group = _group_of(module.relative_to(_ROOT).as_posix())
    if group in _SHARED:
        return _SHARED.index(group)
    return len(_SHARED) + (not takes_long(module))


class ByGroup(LoadScopeScheduling):
    """Gives each process a group of tests after the other, as they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid.partition("::")[0])


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
