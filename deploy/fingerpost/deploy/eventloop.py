"""Which event loop a command runs in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["run_quickly"]


def run_quickly(main: Coroutine[Any, Any, None]) -> None:
    """Run in uvloop's event loop where it is installed (not on Windows), else in asyncio's own.

    For processes that carry bodies: a request of 20 KB costs a worker a fifth less with it.
    """
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)
