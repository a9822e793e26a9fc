"""Starts `fingerpost` commands from a process that has imported them already.

Python takes 0.6 to 0.9 s of processor time to import what a command needs, and the tests start some
four hundred. A warm parent (`warm_parent.py`) imports it once and forks a child for each command.
The child is a process like any other: its parent is the process of the tests, it has the same
standard streams, descriptors, folder, environment, limits and process group as it would have had,
runs `fingerpost.deploy.cli.main` and ends as Python ends. Tests call `subprocess` and `asyncio` as
ever: `install` puts itself where `subprocess` forks.

What is started cold, as a user does: whatever is not exactly `FINGERPOST` (`python -m fingerpost`,
the installed script, by way of a shell, children of commands); commands with other variables of
Python, the locale or a library, which are read as modules are imported; all of them where
`FINGERPOST_TESTS_COLD` is set.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import re
import resource
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.processes import FINGERPOST
from tests.support.sockets import KEPT

__all__ = ["install"]

_ROOT = Path(__file__).parents[2]
# Variables that no module reads while it is imported; those of pytest itself; and those of a
# terminal, for which the child makes its consoles anew.
_READ_LATER = re.compile(r"(FINGERPOST|CONSUL|PYTEST)_\w+|TERM|COLUMNS|LINES")
# The one that tests set for Python, and how; the child does what Python would.
_WARNINGS = ("PYTHONWARNINGS", "default")
_LIMITS = [name for name in dir(resource) if name.startswith("RLIMIT_")]
_PR_SET_CHILD_SUBREAPER = 36


class _WarmParent:
    """The warm parent of this process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._environment: dict[str, str] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def takes(self, environment: dict[str, str]) -> bool:
        """Whether a command in this environment may be a child of the warm parent.

        It is that of the tests' own environment, which TensorFlow writes to when it is imported:
        then another one is started.
        """
        ours = _imported_with(os.environ)
        if _imported_with(environment) != ours:
            return False
        if self._environment != ours:
            with self._lock:
                self.close()
        return True

    def start(self, request: dict[str, Any], descriptors: list[int]) -> int:
        """Start a command; return the process id of what is now a child of this process."""
        with self._lock:
            if self._socket is None:
                self._socket = self._launch()
                KEPT.add(self._socket.fileno())
            try:
                # The one in between ends at once, and its child falls to us, as no one else asks.
                with self._adopting():
                    message = json.dumps(request).encode()
                    socket.send_fds(self._socket, [message], descriptors)
                    answer = self._socket.recv(100)
            except BaseException:  # also a test's time limit: the next answer would not be ours
                self.close()
                raise
            if not answer:
                self.close()
                raise RuntimeError("the warm parent of the tests has ended: see its error above")
            return int(answer)

    def close(self) -> None:
        """Let the warm parent end; its children go on."""
        if self._socket is not None:
            KEPT.discard(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _launch(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._environment = _imported_with(os.environ)
        with theirs:
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.warm_parent", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=_ROOT,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            ).returncode = 0  # ends with our socket; nobody waits for it
        # While it imports, which takes seconds, nobody is to be adopted.
        if not ours.recv(100):
            ours.close()
            raise RuntimeError("the warm parent of the tests cannot start: see its error above")
        return ours

    @contextlib.contextmanager
    def _adopting(self) -> Iterator[None]:
        """Be the parent of whoever loses its own, as init is otherwise, for a few milliseconds."""
        self._prctl(1)
        try:
            yield
        finally:
            self._prctl(0)

    def _prctl(self, value: int) -> None:
        if self._libc.prctl(_PR_SET_CHILD_SUBREAPER, value, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


def install() -> None:
    """Let `subprocess` start `FINGERPOST` warm, and everything else as ever."""
    if sys.platform != "linux" or os.environ.get("FINGERPOST_TESTS_COLD"):
        return
    cold = subprocess._fork_exec  # type: ignore[attr-defined]
    if getattr(cold, "is_warm", False):
        return
    parent = _WarmParent()
    atexit.register(parent.close)
    beginning = [os.fsencode(each) for each in FINGERPOST]

    def fork_exec(
        arguments: list[bytes],
        programs: tuple[bytes, ...],
        close_fds: bool,
        pass_fds: tuple[int, ...],
        cwd: Any,
        env: list[bytes] | None,
        stdin: int,
        _1: int,
        _2: int,
        stdout: int,
        _3: int,
        stderr: int,
        *rest: Any,
    ) -> int:
        _, error_pipe, _, new_session, group, gid, gids, uid, umask, before, *_ = rest
        streams = [stdin, stdout, stderr]
        streams = [own if each == -1 else each for own, each in enumerate(streams)]
        environment = _as_text(env)
        plain = (gid, gids, uid, umask, before) == (None, None, None, -1, None) and close_fds
        if (
            [os.fsencode(each) for each in arguments[:3]] != beginning
            or not plain
            or any(map(_is_closed, streams))
            or not parent.takes(environment)
        ):
            return int(
                cold(
                    arguments, programs, close_fds, pass_fds, cwd, env,
                    stdin, _1, _2, stdout, _3, stderr, *rest,
                )
            )  # fmt: skip
        passed = sorted(int(each) for each in pass_fds if each > 2 and each != error_pipe)
        return parent.start(
            {
                "arguments": [os.fsdecode(each) for each in arguments[3:]],
                "cwd": os.fsdecode(cwd) if cwd is not None else str(Path.cwd()),
                "environment": environment,
                "descriptors": [0, 1, 2, *passed],
                "new_session": bool(new_session),
                "group": group,
                "limits": {name: resource.getrlimit(getattr(resource, name)) for name in _LIMITS},
            },
            [*streams, *passed],
        )

    fork_exec.is_warm = True  # type: ignore[attr-defined]
    subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]
    # Python 3.13 starts most programs by `posix_spawn` instead, where glibc can close descriptors.
    subprocess._USE_POSIX_SPAWN = False  # type: ignore[attr-defined]


def _imported_with(environment: Any) -> dict[str, str]:
    """The variables that may matter while modules are imported."""
    return {
        name: value
        for name, value in environment.items()
        if not _READ_LATER.fullmatch(name) and (name, value) != _WARNINGS
    }


def _as_text(env: list[bytes] | None) -> dict[str, str]:
    if env is None:
        return dict(os.environ)
    pairs = (os.fsdecode(each).partition("=") for each in env)
    return {name: value for name, _, value in pairs}


def _is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False
