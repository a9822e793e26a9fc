"""How large the batches of a model may be, how large they should be, and what that makes of it.

A batch is answered as a whole, so that its first image waits for its last. Where an image of a
larger batch takes as long as one of a smaller batch, that wait buys nothing. So a batch is as small
as it can be while it answers 99 % of the images a second that all ready images as one batch would:
single images where the time is linear in the batch, all of them where it is the same for any size.
A model that seems linear would never run the batches that show that it is not; so now and then a
batch is twice as large.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.engine.batching.latency_model import LatencyModel

__all__ = ["ALONE_S", "BatchSizes", "useful_size"]

# A batch of the useful size takes at most so many times as long for an image as the largest one.
_NEARLY: Final = 1.01
# What a batch costs beside its run: it is handed over between threads. Counts for models of
# microseconds.
_CALL_S: Final = 1e-4
# Least images of one of several concurrent batches, where they are ready: with one at a time ONNX
# Runtime ran 3 % fewer (MobileNetV2 on 2 cores, in turn).
_MIN_SHARE: Final = 2
# One in so many batches is twice as large, if images are ready.
_LARGER_EVERY: Final = 16
# How long a suspect image may keep all others waiting, see `BatchSizes.alone_limit_s`.
ALONE_S: Final = 1.0
_ALONE_TIMES: Final = 4
_MAX_ALONE_S: Final = 10.0


def useful_size(ready: int, fixed_share: float) -> int:
    """The smallest batch with 99 % of the images a second that batches of `ready` images have.

    Args:
        ready: images, 1 or more.
        fixed_share: see `LatencyModel.fixed_share`.
    """
    each = 1 - fixed_share
    allowed = (each + fixed_share / ready) * _NEARLY
    return min(ready, math.ceil(fixed_share / (allowed - each)) or 1)


class BatchSizes:
    """The sizes of the next batches, by the times that were learned.

    Args:
        config: see `BatchingConfig`.
        latency: the times of the model's batches.
        concurrent_batches: most batches that run at once.

    Attributes:
        limit: most images in the next batch; smaller than `max_batch` only for an objective.
    """

    def __init__(
        self, config: BatchingConfig, latency: LatencyModel, concurrent_batches: int
    ) -> None:
        self._config = config
        self._latency = latency
        self._concurrent_batches = concurrent_batches
        self._batches = 0
        self.limit = 1
        self.limit = self._limit()

    @property
    def capacity(self) -> float:
        """How many images the model works on at once: a lone image's time times images a second.

        Of full batches: 1 where the time is linear in the batch, `max_batch` where it is the same
        for all sizes, and until batches of two sizes have run; times the concurrent batches.
        """
        largest = self._config.max_batch
        return self._concurrent_batches * largest * self.alone_part(largest)

    @property
    def alone_s(self) -> float:
        """Seconds that the model takes for a lone image; 0 while too little is known."""
        return self._latency.predict(self._config.padded_size(1))

    @property
    def alone_limit_s(self) -> float:
        """Longest time for which one image keeps all others waiting: some times that of the model.

        At least 1 s, many times that of most models; at most 10 s, after which clients ask.
        """
        return min(max(ALONE_S, _ALONE_TIMES * self.alone_s), _MAX_ALONE_S)

    def alone_part(self, images: int) -> float:
        """The time that a lone image takes, over that of a batch of so many; 1 while unknown."""
        share, padded = self._latency.fixed_share, self._config.padded_size
        if share is None:
            return 1.0
        return (share + (1 - share) * padded(1)) / (share + (1 - share) * padded(images))

    def measured(self, images: int, took_s: float) -> None:
        """Learn from a batch of the warm-up, before any image."""
        self._latency.observe(images, took_s)
        self.learned()

    def learned(self) -> None:
        """Adapt to a run that the latency model has learned from."""
        self.limit = self._limit()

    def useful(self, ready: int) -> int:
        """The smallest batch that answers nearly as many images a second as `ready` images."""
        most, share = min(ready, self.limit), self._latency.fixed_share
        if share is None or most <= 1 or self._config.sizes:
            return max(1, most)
        alone_s = self.alone_s
        return useful_size(most, (share * alone_s + _CALL_S) / (alone_s + _CALL_S))

    def next(self, ready: int) -> int:
        """The size of the next batch: the useful one, or now and then twice that.

        One of several concurrent batches has its share of the images at most. Where only some
        sizes run, it is one of them, so that images of other classes may have the places left.

        Args:
            ready: images of the class whose turn it is.
        """
        size = self.useful(ready)
        self._batches += 1
        if size < ready and self._batches >= _LARGER_EVERY:
            self._batches = 0
            size = min(2 * size, self.limit)
        size = self._shared(size, ready)
        return self._config.padded_size(min(size, ready)) if self._config.sizes else size

    def full(self, ready: int) -> int:
        """The useful size of a batch of images of any class, of which so many are ready."""
        return self._shared(self.useful(ready), ready) if ready else 0

    def _shared(self, size: int, ready: int) -> int:
        """The part of one of several concurrent batches."""
        if self._concurrent_batches == 1:
            return size
        return min(size, max(_MIN_SHARE, math.ceil(ready / self._concurrent_batches)))

    def _limit(self) -> int:
        """Most images in the next batch, as the objective allows."""
        config = self._config
        if config.latency_s is None:
            return config.max_batch
        sizes = config.sizes or range(1, config.max_batch + 1)
        return self._latency.largest(sizes, config.latency_s, self.limit)
