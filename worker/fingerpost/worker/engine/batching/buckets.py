"""Batches of items that can run together: those of a model that takes images of several sizes.

The item whose turn it is says which bucket runs next, and takes those of its bucket that are ready
with it, in their order. So every item waits for one run of each that goes before it at most, as
with batches of one, and no bucket can wait for ever: the first in the order always runs.

Rejected: a queue for each bucket, whose order between them would have to be that of tenants,
classes and deadlines once more; and waiting until a bucket is full: `max_wait_s` waits for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.choice import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from fingerpost.worker.engine.batching.batch import Pending
    from fingerpost.worker.engine.batching.config import BatchingConfig

__all__ = ["BucketBatcher", "new_batcher"]

T = TypeVar("T")


class BucketBatcher(Batcher[T]):
    """A `Batcher` whose batches are of one bucket each.

    Args:
        config, max_preparing, concurrent_batches: see `Batcher`.
        bucket: of an item that is prepared; items with equal ones may run in one batch.
    """

    def __init__(
        self,
        config: BatchingConfig,
        *,
        bucket: Callable[[T], Hashable],
        max_preparing: int = 1,
        concurrent_batches: int = 1,
    ) -> None:
        super().__init__(config, max_preparing=max_preparing, concurrent_batches=concurrent_batches)
        self._bucket = bucket

    def _choose(self, now: float) -> tuple[list[Pending[T]], list[Pending[T]]]:
        if self.alone is not None:
            return super()._choose(now)
        bucket = self._bucket
        own, others = self._ready.next_class(self.sizes.limit)
        wanted = bucket(next(iter(own)).item)
        own = [each for each in own if bucket(each.item) == wanted]
        others = [each for each in others if bucket(each.item) == wanted]
        most = self.sizes.next(len(own))
        full = self.sizes.full(len(own) + len(others) if others else 0)
        return choose(own, others, most, full, now, lambda images: self._run_s(images, now))


def new_batcher(backend: Any, config: BatchingConfig, *, max_preparing: int) -> Batcher[Any]:
    """The batcher for a backend: by buckets, if it has a function `bucket` of its jobs' items."""
    concurrent: int = backend.input.concurrent_batches
    bucket: Callable[[Any], Hashable] | None = getattr(backend, "bucket", None)
    if bucket is None:
        return Batcher(config, max_preparing=max_preparing, concurrent_batches=concurrent)
    return BucketBatcher(
        config,
        bucket=lambda job: bucket(job.item),
        max_preparing=max_preparing,
        concurrent_batches=concurrent,
    )
