"""Batchers of numbers, and what they have learned of a model."""

from __future__ import annotations

import math

from fingerpost.worker.engine.batching.batch import Batch
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig

__all__ = ["batcher", "items", "taught", "ten_and_two"]


def batcher(
    max_batch: int = 4,
    max_queue: int = 8,
    max_preparing: int = 1,
    concurrent_batches: int = 1,
    **options,
) -> Batcher[int]:
    chosen = BatchingConfig(max_batch=max_batch, max_queue=max_queue, **options)
    return Batcher(chosen, max_preparing=max_preparing, concurrent_batches=concurrent_batches)


def items(batch: Batch[int] | None) -> list[int]:
    return [] if batch is None else [pending.item for pending in batch.items]


def taught(queue: Batcher[int], line, *, until: float = 100.0) -> Batcher[int]:
    """A batcher that has seen runs of 1 and of its limit, the last of which ended at `until`."""
    sizes = [1, queue.sizes.limit] * 10
    start = until - sum(line(size) for size in sizes)
    for size in sizes:
        for item in range(size):
            queue.submit(item, cost=0, now=-math.inf)  # has waited for company long enough
        assert len(items(queue.poll(start))) == size
        start += line(size)
        queue.complete(start)
    return queue


def ten_and_two(size: int) -> float:
    """10 ms a run and 2 ms an image."""
    return 0.010 + 0.002 * size
