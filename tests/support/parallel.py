"""Tests in several processes: which go together, and which have the machine to themselves.

`make test` runs several processes (pytest-xdist). All tests of a module run in the same one, and so
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
# Those that the fixtures `url` and `registry` of a folder lead to.
_LEADS_TO = {
    "tests/registry": "consul_cluster",
    "tests/registry/consul": "consul_cluster",
    "tests/registry/zookeeper": "zookeeper_url",
}
_LEADS = re.compile(r"^ *(?:async )?def \w+\([^()]*\b(?:url|registry)\b[:,)\s]", re.MULTILINE)
# What imports TensorFlow or PyTorch, 3 to 9 s of processor time, in the process of the tests.
_HEAVY = re.compile(
    r"later\(\"(?:keras|tensorflow|torch)\"\)|import tensorflow"
    r"|support\.(?:builders\.all|row_models|shape_models|vision_models)|builders import litert"
)
_ALONE = re.compile(r"^pytestmark = .*\.alone\b", re.MULTILINE)
# In the order in which they are begun. What simulates comes last: the simulations run in the
# background from the beginning. What runs alone comes when no long test is left to wait for.
_ORDER = (*_SHARED[:2], "frameworks", *_SHARED[2:], "long", "short", "alone", "simulated")


def folder_of(config: pytest.Config) -> tuple[Path, bool]:
    """A folder that all processes of this run have in common; and whether there are several."""
    several = hasattr(config, "workerinput")
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return (base.parent if several else base), several


@functools.cache
def _group_of(module: str) -> str:
    """The modules that must run in one process with this one, which is a path: a name of them."""
    text = (_ROOT / module).read_text("utf-8")
    shared = next((name for name, use in _USES.items() if use.search(text)), None)
    if shared is None and _LEADS.search(text):
        shared = _LEADS_TO.get(module.rpartition("/")[0])
    if shared is not None:
        return shared
    if _HEAVY.search(text):
        return "frameworks"
    return "alone" if _ALONE.search(text) else module


@functools.cache
def place_of(module: Path) -> int:
    """Where in the order a module stands: what takes longest is begun first."""
    if "@simulates(" in module.read_text("utf-8"):
        return _ORDER.index("simulated")
    group = _group_of(module.relative_to(_ROOT).as_posix())
    if group in _ORDER:
        return _ORDER.index(group)
    return _ORDER.index("long" if takes_long(module) else "short")


class ByGroup(LoadScopeScheduling):
    """Gives each process a group of tests after the other, as they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def _split_scope(self, nodeid: str) -> str:
        return _group_of(nodeid.partition("::")[0])


class Turns:
    """Locks that let the tests of several processes run side by side, or one of them alone.

    Tests of a process that run alone, one after the other, wait once: before the first of them.

    Args:
        folder: that the processes have in common; None where there is one process only.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._locks = contextlib.ExitStack()
        self._stays = False

    @contextlib.contextmanager
    def turn(self, *, alone: bool, stays: bool = False) -> Iterator[None]:
        """Wait for the turn of a test.

        Args:
            alone: whether it runs alone.
            stays: whether the next test of this process does so, too.
        """
        if self._folder is None:
            yield
            return
        if not self._stays:
            self._wait(self._folder, alone=alone)
        self._stays = alone and stays
        try:
            yield
        finally:
            if not self._stays:
                self._locks.close()

    def _wait(self, folder: Path, *, alone: bool) -> None:
        """Who wants to be alone keeps the gate closed while it waits for those inside to end."""
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        gate = self._locks.enter_context((folder / "gate").open("a"))
        room = self._locks.enter_context((folder / "room").open("a"))
        fcntl.flock(gate, how)
        fcntl.flock(room, how)
        if not alone:
            fcntl.flock(gate, fcntl.LOCK_UN)
