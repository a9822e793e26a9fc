"""One image on its way through an engine."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from fingerpost.worker.backends.base import Item
    from fingerpost.worker.engine.outcome import Outcome

__all__ = ["Job"]

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Job:
    """One image, and the future of its outcome.

    Attributes:
        future: of the event loop that submitted the image.
        arrived: when it was submitted, on the monotonic clock.
        cost: megabytes.
        make: makes `item` of what was sent; None where nothing is to be done, or it was done.
        item: what the model takes.
        decode_s: how long `make` took.
    """

    future: asyncio.Future[Outcome]
    arrived: float
    cost: float
    make: Callable[[], Item] | None = None
    item: Item = b""
    decode_s: float = 0.0

    def call_in_loop(self, function: Callable[..., None], *args: object) -> None:
        """Call a function in the event loop that waits for the outcome; from any thread."""
        try:
            self.future.get_loop().call_soon_threadsafe(function, *args)
        except RuntimeError:
            logger.debug("the event loop was closed before its images were done")

    def fail(self, error: Exception) -> None:
        """Set an error as the outcome, unless there is one already; from any thread."""
        self.call_in_loop(_set_error, self.future, error)


def _set_error(future: asyncio.Future[Outcome], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
