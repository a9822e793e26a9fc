"""No regular expression takes the square of the time for text that strangers make up."""

from __future__ import annotations

import importlib
import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.test_source import ROOMS, ROOT, sources

_LENGTH = 4096
# What is linear takes under a millisecond; the square of this length takes 50 and more.
_MOST_S = 0.02
# It sees only what `_DURATION` has matched.
_GUARDED = {"fingerpost.registry.embedded.state.definitions._DURATION_PART"}


def _uses() -> list[Any]:
    """Each expression of the source with the method that it is used by."""
    found = []
    for path in sources(*ROOMS):
        source = path.read_text("utf-8")
        parts = path.relative_to(ROOT).with_suffix("").parts
        # Build hooks, and filters of Ansible, are not in the package; they read what is ours.
        packaged = "fingerpost" in parts and "ansible_collections" not in parts
        if "re.compile(" not in source or not packaged:
            continue
        module = ".".join(parts[parts.index("fingerpost") :])
        for name, each in vars(importlib.import_module(module)).items():
            if isinstance(each, re.Pattern) and f"{module}.{name}" not in _GUARDED:
                used = set(re.findall(rf"\b{name}\.(\w+)\(", source))
                methods = {"fullmatch", "match"} & used | (
                    {"search"} if used - {"fullmatch", "match"} else set()
                )
                found += [
                    pytest.param(each, method, id=f"{module}.{name}.{method}")
                    for method in sorted(methods)
                ]
    return found


def _pieces(pattern: re.Pattern[Any]) -> list[Any]:
    """Characters that the expression may be about, as it is written."""
    is_text = isinstance(pattern.pattern, str)
    text = pattern.pattern if is_text else pattern.pattern.decode("latin-1")
    pieces = sorted({*re.sub(r"\\x..|\\.", "", text), *' 0aZ.,[]\\"\xff'})
    return pieces if is_text else [each.encode("latin-1") for each in pieces]


@pytest.mark.parametrize(("pattern", "method"), _uses())
def test_a_long_text_takes_no_square_of_its_length(pattern: re.Pattern[Any], method: str) -> None:
    end: Any = "\0" if isinstance(pattern.pattern, str) else b"\0"
    use = getattr(pattern, method)
    for one, two in itertools.product(_pieces(pattern), repeat=2):
        text = (one + two) * (_LENGTH // 2) + end
        assert any(_seconds(use, text) < _MOST_S for _ in range(3)), (one, two)


def _seconds(use: Callable[[Any], object], text: Any) -> float:
    began = time.thread_time()
    use(text)
    return time.thread_time() - began
