"""A version in memory, and the number of requests that use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["VersionHandle"]


class VersionHandle:
    """A version in memory; a context manager for each use of it.

    Every request uses it twice, so it is a plain class: a context manager made from a generator
    costs three times as much.

    Attributes:
        served: the version.
        meta: facts about it for the registration.
        in_use: how many uses have not ended.
        unused: set while `in_use` is 0.
    """

    __slots__ = ("in_use", "meta", "served", "unused")

    def __init__(self, served: ServedVersion, meta: dict[str, str]) -> None:
        self.served = served
        self.meta = meta
        self.in_use = 0
        self.unused = asyncio.Event()
        self.unused.set()

    def __enter__(self) -> ServedVersion:
        self.in_use += 1
        self.unused.clear()
        return self.served

    def __exit__(self, *_: object) -> None:
        self.in_use -= 1
        if not self.in_use:
            self.unused.set()
