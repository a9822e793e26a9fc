"""What each test needs, as a marker: `core`, `shell`, `consul`, `frameworks`, `system`, `faults`.

A test's kinds are the markers that it, its class or its module names; without any they follow from
its folder, its module's imports and its fixtures, see `kinds_of`. `make quick` runs the tests of
cores, without the slow ones.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import functools
import importlib
import inspect
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "FRAMEWORKS",
    "KINDS",
    "QUICK",
    "CoreGuard",
    "has_quick_tests",
    "kinds_of",
    "takes_long",
]

# The tests that `make quick` runs, as pytest's option `-m` names them.
QUICK = "core and not slow"

KINDS = ("core", "shell", "consul", "frameworks", "system", "faults")

# What a machine may lack, or what takes long to import.
FRAMEWORKS = (
    "ai_edge_litert",
    "cv2",
    "dask",
    "keras",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "openvino",
    "pandas",
    "ray",
    "scipy",
    "sklearn",
    "tensorflow",
    "tf2onnx",
    "torch",
)

_TESTS = Path(__file__).parents[1]
_FOLDERS = {"faults": "faults", "system": "system"}
# Of every test that uses such a fixture, also by way of another one.
_FIXTURES = {
    "consul_binary": "consul",
    "zookeeper_program": "consul",
    "models": "frameworks",
    "colours": "system",
    "demo": "system",
    "processes": "system",
}
# Parameters that stand for a server.
_SERVERS = frozenset({"consul", "consul-cluster", "zookeeper"})

_MARK = re.compile(r"^pytestmark = .*", re.MULTILINE)
_NAMES = "|".join(FRAMEWORKS)
_FRAMEWORK = re.compile(
    rf"^(?:from|import) (?:tests\.support\.builders|{_NAMES})\b|^ *\w+ = later\(\"(?:{_NAMES})\b",
    re.MULTILINE,
)
_PLAIN_TEST = re.compile(r"^(?: +def test_|def test_|Test\w+ = )", re.MULTILINE)


def kinds_of(item: pytest.Item) -> set[str]:
    """The kinds that a test names itself, else all that hold of it.

    - `faults` and `system`: those of that folder;
    - `frameworks`: those of a module that imports one at its top, or `later`;
    - `consul`, `frameworks` and `system`: those that use such a fixture;
    - without any of these, `shell` where the test or one of its fixtures is a coroutine, and `core`
      where none is.
    """
    named = {mark.name for mark in item.iter_markers() if mark.name in KINDS}
    if named:
        return named
    kinds = set(_kinds_of_module(item.path))
    kinds |= {_FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in _FIXTURES}
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if any(isinstance(value, str) and value in _SERVERS for value in parameters.values()):
        kinds.add("consul")
    return kinds or {"shell" if any(map(_waits, _functions(item))) else "core"}


def has_quick_tests(module: Path) -> bool:
    """Whether a test module may have tests of cores that are not slow.

    Its text says so: the other modules need not be imported, which is most of what they cost.
    """
    text = module.read_text("utf-8")
    mark = _MARK.search(text)
    if mark is not None and re.search(rf"\.(?:slow|{'|'.join(KINDS[1:])})\b", mark[0]):
        return False
    return not _kinds_of_module(module) and _PLAIN_TEST.search(text) is not None


def takes_long(module: Path) -> bool:
    """Whether a module takes many seconds by its text: frameworks, processes, simulations."""
    mark = _MARK.search(module.read_text("utf-8"))
    return bool(_kinds_of_module(module)) or (mark is not None and ".slow" in mark[0])


class CoreGuard:
    """Lets fail whatever a core has no business with, in the thread that runs a core's test.

    A core starts no other thread: one that runs beside it belongs to something else. The guard
    stays in place from one core's test to the next, which saves most of what it costs.
    """

    def __init__(self) -> None:
        self._patch: pytest.MonkeyPatch | None = None
        self._guarded: int | None = None

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Guard what this thread does meanwhile."""
        if self._patch is None:
            self._patch = pytest.MonkeyPatch()
            self._put_in_place(self._patch)
        self._guarded = threading.get_ident()
        try:
            yield
        finally:
            self._guarded = None

    def remove(self) -> None:
        """Leave everything as it was, for a test of another kind."""
        if self._patch is not None:
            self._patch.undo()
            self._patch = None

    def _put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        def forbid(owner: object, name: str, what: str) -> None:
            real = getattr(owner, name)

            @functools.wraps(real)
            def fail(*arguments: Any, **more: Any) -> Any:
                if threading.get_ident() != self._guarded:
                    return real(*arguments, **more)
                pytest.fail(f"a test of a core {what}: mark it as another kind")

            patch.setattr(owner, name, fail)

        forbid(socket.socket, "__init__", "opens a socket")
        forbid(socket, "socketpair", "opens a socket")
        forbid(asyncio.BaseEventLoop, "__init__", "makes an event loop")
        forbid(asyncio, "new_event_loop", "makes an event loop")
        forbid(subprocess.Popen, "__init__", "starts a process")
        forbid(os, "fork", "starts a process")
        forbid(threading.Thread, "start", "starts a thread")
        forbid(time, "sleep", "sleeps")

        def checked(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def check(name: str, *arguments: Any, **more: Any) -> Any:
                guarded = threading.get_ident() == self._guarded
                if guarded and name.partition(".")[0] in FRAMEWORKS:
                    pytest.fail(f"a test of a core imports {name}: mark it as another kind")
                return function(name, *arguments, **more)

            return check

        patch.setattr(builtins, "__import__", checked(builtins.__import__))
        patch.setattr(importlib, "import_module", checked(importlib.import_module))


@functools.cache
def _kinds_of_module(module: Path) -> frozenset[str]:
    folder = module.relative_to(_TESTS).parts[0]
    if folder in _FOLDERS:
        return frozenset({_FOLDERS[folder]})
    return frozenset({"frameworks"} if _FRAMEWORK.search(module.read_text("utf-8")) else ())


def _functions(item: pytest.Item) -> Iterator[Callable[..., Any]]:
    """The test's own function and those of its fixtures."""
    yield getattr(item, "obj", item.runtest)
    if isinstance(item, pytest.Function):
        for fixtures in item._fixtureinfo.name2fixturedefs.values():
            yield fixtures[-1].func


def _waits(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
