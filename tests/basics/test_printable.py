r"""Text of strangers, as a terminal may show it."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.basics.printable import one_line, printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("daisy", "daisy"),
        ("Gänseblümchen 雛菊 \U0001f469\u200d\U0001f692 می\u200cرم", None),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("safe\u202egnp.exe", r"safe\u202egnp.exe"),
        ("a\u2028b\u2066c\ufeff", r"a\u2028b\u2066c\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041"),
        (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"),
        ("\ud800", r"\ud800"),
        ("[red]x[/red] :smile:", "[red]x[/red] :smile:"),
    ],
)
def test_what_is_shown(text: str, shown: str | None) -> None:
    assert printable(text) == (text if shown is None else shown)


def test_own_newlines_may_stay() -> None:
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_long_text_is_cut_and_says_so() -> None:
    assert printable("x" * 30, most=10) == "xxxxxxxxxx... (20 more characters)"
    assert len(one_line("\x1b" * 10_000_000)) < 5000


@given(st.text(st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(text)
    assert not [each for each in shown if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not [each for each in shown if unicodedata.bidirectional(each) in _OVERRIDES]
    assert shown.encode().decode() == shown


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_the_same_document(text: str) -> None:
    document = printable_json(json.dumps({"label": text}, ensure_ascii=False, indent=1))
    assert json.loads(document) == {"label": text}
    assert not [each for each in document if unicodedata.category(each) == "Cc" and each != "\n"]


_OVERRIDES = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}
