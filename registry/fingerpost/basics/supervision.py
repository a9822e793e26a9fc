"""Background tasks that go on after an unexpected exception, say so, and are counted.

A task that ends by an exception which nobody awaits ends silently: the proxy goes on serving, with
load reports that nobody updates any more. What a peer sends must not cause such an exception; if it
does, that is a fault of ours, and must cost one round and not all further ones.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["UNEXPECTED_ERRORS", "count_unexpected", "supervise"]

logger = logging.getLogger(__name__)

UNEXPECTED_ERRORS: Final[Counter[str]] = Counter()
"""How many unexpected exceptions there were in this process, by the kind of task."""

# Of one kind of task, one traceback in this time is logged.
_LOG_EVERY_S: Final = 60.0
_PAUSE_S: Final = 1.0
_logged_at: Final[dict[str, float]] = {}


async def supervise(
    work: Callable[[], Awaitable[None]], kind: str, *, pause_s: float = _PAUSE_S
) -> None:
    """Await `work()`, and again `pause_s` seconds after an unexpected exception, until it returns.

    Args:
        work: makes the awaitable; it must be possible to begin it again.
        kind: names the task in logs and in `UNEXPECTED_ERRORS`, such as `load probes`.
        pause_s: seconds before it begins again.
    """
    while True:
        try:
            return await work()
        except Exception as error:  # cancellation is not one
            count_unexpected(kind, error)
        await asyncio.sleep(pause_s)


def count_unexpected(kind: str, error: Exception) -> None:
    """Count an exception that a task did not expect, and log it, but not each time."""
    UNEXPECTED_ERRORS[kind] += 1
    now = time.monotonic()
    if now - _logged_at.get(kind, -_LOG_EVERY_S) >= _LOG_EVERY_S:
        _logged_at[kind] = now
        logger.error("%s: unexpected error; it goes on", kind, exc_info=error)
