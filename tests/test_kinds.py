"""Every test says what it needs, and those of cores need nothing."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.kinds import FRAMEWORKS, KINDS, QUICK

_ROOT = Path(__file__).parents[1]
_COLLECT = """
import sys
import pytest
status = pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "-m", sys.argv[1]])
loaded = {name.partition(".")[0] for name in sys.modules}
print("loaded:", *sorted(loaded & set(sys.argv[2:])))
sys.exit(status)
"""


def test_every_test_has_a_kind(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        kinds = {mark.name for mark in item.iter_markers()} & set(KINDS)
        assert kinds, item.nodeid
        assert kinds == {"core"} or "core" not in kinds, item.nodeid


@pytest.mark.core
@pytest.mark.parametrize(
    "act",
    [
        socket.socket,
        lambda: socket.socketpair(),
        lambda: asyncio.new_event_loop(),
        lambda: subprocess.run(["true"], check=False),
        lambda: os.fork(),
        lambda: threading.Thread(target=print).start(),
        lambda: time.sleep(0),
        lambda: importlib.import_module("torch.nn"),
        lambda: __import__("tensorflow"),
    ],
)
def test_a_test_of_a_core_cannot_touch_the_world(act: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="a test of a core"):
        act()


@pytest.mark.shell
@pytest.mark.slow
def test_collecting_the_quick_tests_imports_no_framework() -> None:
    run = subprocess.run(
        [sys.executable, "-c", _COLLECT, QUICK, *FRAMEWORKS],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr
    assert run.stdout.splitlines()[-1] == "loaded:"
    assert "::" in run.stdout
    makefile = (_ROOT / "Makefile").read_text()
    assert f"QUICK := {QUICK}\n" in makefile
    assert '-m "$(QUICK)"' in makefile
