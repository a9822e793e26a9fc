"""The text of frameworks' errors."""

from __future__ import annotations

from fingerpost.worker.backends.reasons import reason


def test_the_cause_behind_a_configuration_is_kept() -> None:
    text = (
        "<class 'Dense'> could not be deserialized properly.\n\n"
        "config={'layers': [{'a': 1}]}.\n\nException encountered: no \x1b[1mquantum\x1b[0m"
    )
    assert reason(ValueError(text)) == (
        "<class 'Dense'> could not be deserialized properly. Exception encountered: no quantum"
    )


def test_of_a_long_text_both_ends_are_kept() -> None:
    found = reason(ValueError("first " + "x" * 5000 + " last"))
    assert len(found) < 1010
    assert found.startswith("first x")
    assert found.endswith("x last")


def test_an_error_without_a_text() -> None:
    assert reason(KeyError()) == "KeyError()"
