"""What the probes of proxies tell a worker: whether they come, and how far the clocks differ."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Final

from fingerpost.basics.log_limit import LogLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiohttp import web

__all__ = ["ProbeWatch"]

logger = logging.getLogger(__name__)

# As `fingerpost doctor` warns; a probe that takes longer than 0.5 s is given up by the proxy.
_OFFSET_S: Final = 1.0
_SLOWEST_PROBE_S: Final = 0.5
_LOG_EVERY_S: Final = 600.0
# A proxy asks each worker once a second, and 2,000 workers every ten.
_SILENCE_S: Final = 60.0


class ProbeWatch:
    """Says in the log what keeps proxies from this worker, and that clocks differ.

    Args:
        clock: the time in seconds since 1970; another one in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._log = LogLimit(_LOG_EVERY_S)
        self.probed = False

    def note(self, sent_at: str, sender: str | None) -> None:
        """A probe came.

        Args:
            sent_at: what the sender's clock showed, as it wrote it: seconds since 1970.
            sender: its address.
        """
        self.probed = True
        here = self._clock()
        try:
            behind_s = float(sent_at) - here
        except ValueError:
            return
        # It was under way for a while, so that a clock which is right seems to be ahead.
        agree = -_OFFSET_S - _SLOWEST_PROBE_S <= behind_s <= _OFFSET_S
        if agree or not math.isfinite(behind_s) or not self._log.count(here):
            return
        logger.warning(
            "this clock is %.3g s %s that of the machine at %s: leases and certificates may not "
            "hold; let both follow a time server (timedatectl set-ntp true, or chrony)",
            abs(behind_s),
            "behind" if behind_s > 0 else "ahead of",
            sender or "an unknown address",
        )

    async def watch_silence(self, _: web.Application) -> AsyncIterator[None]:
        """Say once, after a minute, that no proxy has asked (an aiohttp cleanup context)."""
        task = asyncio.create_task(self._report_silence(_SILENCE_S), name="silence of proxies")
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _report_silence(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if not self.probed:
            logger.info(
                "no proxy has reached this worker within %g s: if there is one, let it connect to "
                "this worker's port (fingerpost doctor --proxy URL says more)",
                after_s,
            )
