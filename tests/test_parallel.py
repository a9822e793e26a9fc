"""How tests share a machine among several processes."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from tests.support.later import later
from tests.support.parallel import Turns


@pytest.mark.core
def test_a_module_is_imported_as_the_first_of_its_attributes_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    module = later("colorsys")
    assert not getattr(module, "__test__", False)
    assert "colorsys" not in sys.modules
    assert module.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    assert "colorsys" in sys.modules


@pytest.mark.shell
def test_who_stays_alone_waits_once(tmp_path: Path) -> None:
    """Another process gets its turn when the last of several tests that run alone has ended."""
    ours, theirs = Turns(tmp_path), Turns(tmp_path)
    seen: list[str] = []
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with theirs.turn(alone=False):
            seen.append("beside others")

    thread = threading.Thread(target=other)
    with ours.turn(alone=True, stays=True):
        thread.start()
        waiting.wait()
        seen.append("alone")
    with ours.turn(alone=True):
        thread.join(0.05)  # it has a while in which it could come in between
        seen.append("alone")
    thread.join()
    with ours.turn(alone=False), theirs.turn(alone=False):
        seen.append("both")
    assert seen == ["alone", "alone", "beside others", "both"]
