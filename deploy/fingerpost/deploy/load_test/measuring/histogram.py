"""A histogram of latencies whose size does not grow with their number."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, floor, log2
from typing import Final

__all__ = ["Histogram"]

_BUCKETS: Final = 1024  # for each doubling: a bucket is 0.07 % wide
_LEAST_S: Final = 1e-6


class Histogram:
    """Counts of durations in buckets of equal relative width; percentiles are within 0.04 %.

    Buckets by logarithm are those of DDSketch (Masson et al., VLDB 2019); the correction is that
    of HdrHistogram (`copyCorrectedForCoordinatedOmission`). Rejected: the package `hdrhistogram`,
    which is maintained and has wheels, but is untyped, brings setuptools and pbr as dependencies at
    run time, and needs its range in advance; and sorted lists of all values, which grow with the
    run, by four values for each image.

    Attributes:
        count: number of recorded values.
        max_s: the largest recorded value, exactly, in seconds; 0 without values.
    """

    __slots__ = ("_buckets", "_sum_s", "count", "max_s")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._sum_s = 0.0
        self.count = 0
        self.max_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a value `count` times. A value below 1 us counts as 1 us."""
        bucket = floor(log2(max(seconds, _LEAST_S)) * _BUCKETS)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._sum_s += seconds * count
        self.count += count
        self.max_s = max(self.max_s, seconds)

    @property
    def mean_s(self) -> float:
        """The exact mean in seconds; 0 without values."""
        return self._sum_s / self.count if self.count else 0.0

    def percentiles(self, *percents: float) -> list[float]:
        """For each percentage, the smallest value that covers it, in seconds; 0 without values."""
        if not self.count:
            return [0.0] * len(percents)
        buckets = sorted(self._buckets)
        reached = list(accumulate(self._buckets[each] for each in buckets))
        found = []
        for percent in percents:
            rank = max(1, ceil(percent / 100 * self.count - 1e-6))  # 99.9 / 100 is above 0.999
            bucket = buckets[bisect_left(reached, min(rank, self.count))]
            found.append(min(2 ** ((bucket + 0.5) / _BUCKETS), self.max_s))
        return found

    def spectrum(self) -> list[tuple[float, float]]:
        """Pairs of percent and seconds, from 0 to 100 %, in steps that get finer towards 100 %.

        There are five steps for each halving of the rest, as in HdrHistogram's percentile iterator.
        """
        halvings = log2(self.count) if self.count else 0.0
        percents = [100 - 100 * 2 ** (-step / 5) for step in range(floor(5 * halvings) + 1)]
        percents.append(100.0)
        return list(zip(percents, self.percentiles(*percents), strict=True))

    def corrected(self, interval_s: float) -> Histogram:
        """A copy corrected for a sender that waits for answers (coordinated omission).

        The sender should have sent every `interval_s`. While it waited for a longer value it did
        not; the images it did not send would have taken that value less one interval, less two,
        and so on. These values are added.
        """
        copy = Histogram()
        for bucket, count in self._buckets.items():
            seconds = min(2 ** ((bucket + 0.5) / _BUCKETS), self.max_s)
            while True:
                copy.record(seconds, count)
                seconds -= interval_s
                if seconds < interval_s:
                    break
        return copy
