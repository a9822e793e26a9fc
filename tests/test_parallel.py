"""How tests share a machine among several processes."""

from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

from tests.support.later import later
from tests.support.parallel import Turns

# What takes half a second and more, and our modules that import one of these at their top.
_HEAVY = re.compile(
    r"^(?:from|import) (?:tensorflow|keras|torch|sklearn|pandas|dask|matplotlib"
    r"|fingerpost\.[\w.]+\.torch\w*|tests\.support\.(?:keras_models|torch_datasets))\b"
    r"|^from fingerpost\.[\w.]+ import (?:\w+, )*torch\w*\b",
    re.MULTILINE,
)


@pytest.mark.core
def test_collecting_tests_imports_no_heavy_framework() -> None:
    here = Path(__file__).parent
    wrong = [
        f"{path.relative_to(here)}: {found[0]}; write later(...), see tests/support/later.py"
        for path in (*here.rglob("test_*.py"), *here.rglob("support/**/*.py"))
        if path.stem not in {"keras_models", "torch_datasets"}
        for found in [_HEAVY.search(path.read_text("utf-8"))]
        if found
    ]
    assert wrong == []


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
