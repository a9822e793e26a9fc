"""Gather single images into batches: decisions only, no clock, no threads.

Work-conserving: the model is never idle while an image waits. An image that finds the model idle
runs at once, in a batch of one; those that arrive meanwhile form the next batch. So the batch size
follows the load by itself, and no image waits for company. An image submitted when `q` others wait
starts after at most 1 + floor(q / max_batch) runs of the model.

Rejected for now: waiting a few milliseconds for a fuller batch (Triton, mosec, Ray Serve). It adds
that wait to every lone request, and pays only when batches are much cheaper than their parts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from fingerpost.registry.errors import Overloaded

__all__ = ["Batcher", "Pending"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """One submitted item; `cancelled` may be set until its batch is taken."""

    item: T
    cost: float
    submitted_at: float
    cancelled: bool = False


class Batcher(Generic[T]):
    """A bounded queue before one model.

    Args:
        max_batch: most items in one batch. More gives throughput, until the model's memory ends.
        max_queue: most items waiting. More absorbs longer bursts, at the price of latency.
    """

    def __init__(self, *, max_batch: int, max_queue: int) -> None:
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[Pending[T]] = deque()
        self.running_since: float | None = None
        self.queued_cost = 0.0

    def __len__(self) -> int:
        """How many items wait, the cancelled ones among them."""
        return len(self._queue)

    def submit(self, item: T, *, cost: float, now: float) -> Pending[T]:
        """Accept an item, or refuse it at once; never waits.

        Raises:
            Overloaded: `max_queue` items wait already.
        """
        if len(self._queue) >= self._max_queue:
            raise Overloaded(
                f"{len(self._queue)} images wait for the model already: "
                "try another worker, or this one in a second",
                retry_after_s=1.0,
            )
        pending = Pending(item, cost, now)
        self._queue.append(pending)
        self.queued_cost += cost
        return pending

    def take(self, now: float) -> list[Pending[T]]:
        """Start the next batch if the model is idle; an empty list means nothing to run."""
        batch: list[Pending[T]] = []
        if self.running_since is not None:
            return batch
        while self._queue and len(batch) < self._max_batch:
            pending = self._queue.popleft()
            self.queued_cost -= pending.cost
            if not pending.cancelled:
                batch.append(pending)
        if not self._queue:
            self.queued_cost = 0.0  # no drift from adding and subtracting floats
        if batch:
            self.running_since = now
        return batch

    def drain(self) -> list[Pending[T]]:
        """Give back all that waits, for an engine that stops."""
        waiting, self._queue = list(self._queue), deque()
        self.queued_cost = 0.0
        return waiting

    def complete(self) -> None:
        """The batch that `take` gave has run; the next may be taken."""
        self.running_since = None
