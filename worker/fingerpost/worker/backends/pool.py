"""Objects of which each is used by one thread at a time."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

__all__ = ["Pool"]

T = TypeVar("T")


class Pool(Generic[T]):
    """Makes one more where all are in use, so there are as many as threads that ever ran at once.

    Args:
        make: makes one.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: deque[T] = deque()

    @contextlib.contextmanager
    def use(self) -> Iterator[T]:
        """One that no other thread uses meanwhile."""
        try:
            each = self._free.pop()
        except IndexError:
            each = self._make()
        try:
            yield each
        finally:
            self._free.append(each)
