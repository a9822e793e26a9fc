"""Waiting for a condition: the one way in which a test waits."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

__all__ = ["settled", "until", "until_blocking"]


async def until(
    condition: Callable[[], Any], what: str = "", *, within_s: float = 30.0, every_s: float = 0.005
) -> Any:
    """Evaluate the condition again and again until its result is true, and return that result.

    Args:
        condition: a function or a coroutine function without arguments.
        what: what is waited for, for the message of a failure.
        within_s: AssertionError after so many seconds.
        every_s: the pause between two evaluations.
    """
    end = time.monotonic() + within_s
    while True:
        result = condition()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        assert time.monotonic() < end, _late(condition, what, within_s)
        await asyncio.sleep(every_s)


def until_blocking(
    condition: Callable[[], Any], what: str = "", *, within_s: float = 30.0, every_s: float = 0.01
) -> Any:
    """`until` for tests without an event loop: it blocks the thread."""
    end = time.monotonic() + within_s
    while not (result := condition()):
        assert time.monotonic() < end, _late(condition, what, within_s)
        time.sleep(every_s)
    return result


def _late(condition: object, what: str, within_s: float) -> str:
    return f"not within {within_s:g} s: {what or condition}"


async def settled(value: Callable[[], Any], *, turns: int = 200) -> Any:
    """Wait until a value has been the same for so many turns of the event loop, and return it.

    For what this loop alone does, both ends of a connection included: each turn delivers all that
    has arrived, so that nothing more will happen after some idle ones, however slow the machine.
    """
    seen, idle = value(), 0
    while idle < turns:
        await asyncio.sleep(0)
        now = value()
        idle = idle + 1 if now == seen else 0
        seen = now
    return seen
