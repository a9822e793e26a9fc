"""`not_none`: for values that may be `None` by their type and are not by what the test has done."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["not_none"]

T = TypeVar("T")


def not_none(value: T | None) -> T:
    """The value as it is; the test fails here if it is `None`."""
    assert value is not None
    return value
