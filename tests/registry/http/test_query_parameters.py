"""Parameters that a path does not know."""

from __future__ import annotations

import pytest

from fingerpost.errors import InvalidRequest
from fingerpost.registry.http.query_parameters import check_parameters


def test_known_ones_pass() -> None:
    check_parameters([], ())
    check_parameters(["top", "top"], ("top",))


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        (["lable"], ("version", "alias"), r"\?lable= is not .*: it takes version, alias$"),
        (["top", "Top"], ("top",), r"\?Top= is not"),
        (["x" * 1000], (), r"\?x{50}= is not a parameter of this path: it takes none$"),
    ],
)
def test_others_are_named(given: list[str], known: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        check_parameters(given, known)
