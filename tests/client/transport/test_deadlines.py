"""The timer of deadlines."""

from __future__ import annotations

import asyncio
import weakref
from contextvars import ContextVar

from fingerpost.client.transport.deadlines import DeadlineScheduler

SEEN: ContextVar[object] = ContextVar("SEEN")


class Checked:
    def __init__(self) -> None:
        self.checks = 0
        self.twice = asyncio.Event()

    def check(self, now: float) -> None:
        self.checks += 1
        if self.checks == 2:
            self.twice.set()


class Kept:
    """What the variable of a call's context refers to."""


async def test_what_set_the_timer_is_not_kept_while_others_are_in_progress():
    scheduler, checked = DeadlineScheduler(), Checked()

    async def call() -> weakref.ref[Kept]:
        kept = Kept()
        SEEN.set(kept)
        scheduler.add(checked)
        return weakref.ref(kept)

    kept = await asyncio.create_task(call())
    async with asyncio.timeout(10):
        await checked.twice.wait()
    assert kept() is None
    scheduler.discard(checked)
