"""Sends the images of a load test through a client's stream."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import cycle
from typing import TYPE_CHECKING, Final

from fingerpost.deploy.load_test.measuring.report import make_report
from fingerpost.deploy.load_test.measuring.tally import Tally
from fingerpost.errors import NoWorker

if TYPE_CHECKING:
    from fingerpost.client import Client
    from fingerpost.deploy.load_test.measuring.plan import Plan
    from fingerpost.deploy.load_test.measuring.report import Report

__all__ = ["LoadTest"]

_SHOW_EVERY_S: Final = 0.2


class LoadTest:
    """One run of a load test. Each loop is a stream, and decides when its next image is available.

    It runs in asyncio's own event loop, not in uvloop's, whose clock has a resolution of one
    millisecond. The timers of both have that resolution, so that an open loop sends images up to a
    millisecond late; that is part of the response time, and is shown as the lag. Rejected: busy
    waiting for the last millisecond, because the client needs that processor time.

    Args:
        client: the client to send with; the caller closes it.
        images: encoded images, sent in turn and repeatedly.
        plan: the settings.
        progress: called a few times a second with a line for people.
        rng: the random source of the arrivals.
    """

    def __init__(
        self,
        client: Client,
        images: Sequence[bytes],
        plan: Plan,
        *,
        progress: Callable[[str], None] = lambda text: None,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._images = cycle(images)
        self._plan = plan
        self._progress = progress
        self._rng = rng or random.Random()
        self._tally: Tally | None = None
        self._ended = 0.0
        self._cpu_from: tuple[float, float] | None = None
        self._cpu = 0.0

    def report(self) -> Report | None:
        """The figures of the run so far; None before the measurement has begun."""
        if self._tally is None or self._ended <= self._tally.begin:
            return None
        return make_report(self._plan, self._tally, ended=self._ended, cpu=self._cpu)

    async def run(self) -> None:
        """Send the images, and wait for all results. It may be cancelled.

        It ends at the latest twice `deadline_s` after the planned time.

        Raises:
            FingerpostError: the model cannot be resolved (see `Client.resolve`), or no worker
                serves it.
        """
        plan, now = self._plan, asyncio.get_running_loop().time
        if not (await self._client.resolve(plan.model)).instances:
            raise NoWorker(f"no healthy worker serves {plan.model} now")
        start = now()
        tally = self._tally = Tally(start + plan.warm_up_s, plan.seconds)
        results = self._client.stream(
            self._closed(tally) if plan.rate is None else self._open(tally, start),
            plan.model,
            top=1,
            concurrency=(plan.concurrency or "auto") if plan.rate is None else plan.max_outstanding,
            timeout_s=plan.deadline_s,
        )
        shown = start
        try:
            async with aclosing(results):
                async for result in results:
                    tally.receive(result)
                    if now() > shown + _SHOW_EVERY_S:
                        shown = now()
                        self._show(tally, shown)
        finally:
            self._ended = now()
            self._measure_cpu(self._ended)
        # The last image of an open loop may be answered before the time is over.
        self._ended = max(self._ended, tally.end)

    def _closed(self, tally: Tally) -> Iterator[bytes]:
        """Images without delay, whenever there is room for the next one, until the time is over."""
        clock = asyncio.get_running_loop().time
        for index, image in enumerate(self._images):
            now = clock()
            if now >= tally.end:
                return
            tally.send(index, due=now, now=now)
            self._began(tally, now)
            yield image

    async def _open(self, tally: Tally, start: float) -> AsyncIterator[bytes]:
        """Images when they are due, or later as soon as there is room for the next one."""
        clock = asyncio.get_running_loop().time
        index = 0
        for offset in self._plan.due(self._rng):
            due = start + offset
            now = clock()
            held = False
            if now < due:
                await asyncio.sleep(due - now)
                now = clock()
            else:
                held = tally.outstanding >= self._plan.max_outstanding
            if now - due >= self._plan.deadline_s:
                tally.skip(due=due)
                continue
            tally.send(index, due=due, now=now, held=held)
            self._began(tally, now)
            yield next(self._images)
            index += 1

    def _began(self, tally: Tally, now: float) -> None:
        if self._cpu_from is None and now >= tally.begin:
            self._cpu_from = now, time.process_time()

    def _measure_cpu(self, now: float) -> None:
        if self._cpu_from is not None and now > self._cpu_from[0]:
            since, used_s = self._cpu_from
            self._cpu = (time.process_time() - used_s) / (now - since)

    def _show(self, tally: Tally, now: float) -> None:
        if now < tally.begin:
            self._progress(f"warming up, {tally.begin - now:.0f} s more")
            return
        left_s = max(0.0, tally.end - now)
        p50, p99 = tally.response.percentiles(50, 99)
        self._progress(
            f"{tally.answered:,} images answered, {tally.errors.total():,} failed, "
            f"{tally.outstanding:,} in flight; p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms; "
            f"{left_s:.0f} s more"
        )
