"""Waiting for a condition while the load goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

__all__ = ["until"]


async def until(
    condition: Callable[[], Any], what: str, *, timeout_s: float = 30.0, every_s: float = 0.01
) -> float:
    """Ask again and again until the answer is true; return when that was, in monotonic seconds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s:g} s: {what}"
        await asyncio.sleep(every_s)
    return time.monotonic()
