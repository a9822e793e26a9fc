"""A version in memory, and how many requests use it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fingerpost.worker.repository.manager import ServedVersion

__all__ = ["HeldVersion"]


class HeldVersion:
    """`with` it to use it; `free` is set while nobody does.

    Every request does so twice, so it is a plain class: a generator's context costs three times as
    much.
    """

    __slots__ = ("free", "holds", "meta", "served")

    def __init__(self, served: ServedVersion, meta: dict[str, str]) -> None:
        self.served = served
        self.meta = meta
        self.holds = 0
        self.free = asyncio.Event()
        self.free.set()

    def __enter__(self) -> ServedVersion:
        self.holds += 1
        self.free.clear()
        return self.served

    def __exit__(self, *_: object) -> None:
        self.holds -= 1
        if not self.holds:
            self.free.set()
