"""The event loop that a worker process runs in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run_main"]


def run_main(main: Coroutine[Any, Any, None]) -> None:
    """Run the coroutine in uvloop where that is installed (not on Windows), else in asyncio.

    For processes that carry bodies: with uvloop a request of 20 KB costs a worker a fifth less.
    """
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
