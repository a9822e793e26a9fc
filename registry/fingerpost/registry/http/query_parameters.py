"""Refuses parameters of a query that a path does not know.

A misspelt parameter that is ignored is a wrong answer with status 200: `?lable=canary` would give
the default version. Protocols of others (TensorFlow Serving's, the Open Inference Protocol's) keep
their own rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fingerpost.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["check_parameters"]


def check_parameters(given: Iterable[str], known: Collection[str]) -> None:
    """Check the names of a query's parameters.

    Raises:
        InvalidRequest: one is not known; the message has those that are.
    """
    for name in given:
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise InvalidRequest(f"?{name[:50]}= is not a parameter of this path: {takes}")
