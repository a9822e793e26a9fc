"""Counts of latencies, in little memory however many they are."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from math import ceil, floor, log2
from typing import Final

__all__ = ["Histogram"]

_BUCKETS: Final = 1024  # for each doubling: a bucket is 0.07 % wide
_LEAST_S: Final = 1e-6


class Histogram:
    """Counts seconds in buckets of equal relative width; a value read back is 0.04 % off at most.

    Buckets by logarithm are those of DDSketch (Masson et al., VLDB 2019); the correction is that
    of HdrHistogram (`copyCorrectedForCoordinatedOmission`). Rejected: the package `hdrhistogram`,
    which is maintained and has wheels, but is untyped, brings setuptools and pbr as dependencies at
    run time, and wants its range told beforehand; and sorted lists of all values, which grow with
    the run, four of them for each image.

    Attributes:
        count: values recorded.
        max_s: the largest of them, exactly; 0 where there is none.
    """

    __slots__ = ("_buckets", "_sum_s", "count", "max_s")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self._sum_s = 0.0
        self.count = 0
        self.max_s = 0.0

    def record(self, seconds: float, count: int = 1) -> None:
        """Count a value, so many times. Below 1 us it counts as 1 us."""
        bucket = floor(log2(max(seconds, _LEAST_S)) * _BUCKETS)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self._sum_s += seconds * count
        self.count += count
        self.max_s = max(self.max_s, seconds)

    @property
    def mean_s(self) -> float:
        """The mean, exactly; 0 where there is none."""
        return self._sum_s / self.count if self.count else 0.0

    def percentiles(self, *percents: float) -> list[float]:
        """For each, the least value that so many percent do not exceed; 0 where there is none."""
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
        """Percent and seconds from 0 to 100, ever finer towards the end, as far as values go.

        Five steps for each halving of what is above, like HdrHistogram's percentile iterator.
        """
        halvings = log2(self.count) if self.count else 0.0
        percents = [100 - 100 * 2 ** (-step / 5) for step in range(floor(5 * halvings) + 1)]
        percents.append(100.0)
        return list(zip(percents, self.percentiles(*percents), strict=True))

    def corrected(self, interval_s: float) -> Histogram:
        """A copy with the values added that a sender would have seen who did not wait.

        It should have sent every `interval_s`; a value above that held the next ones up, which
        would have taken the value less one interval, less two, and so on.
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
