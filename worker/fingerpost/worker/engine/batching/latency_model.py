"""How long a model takes for a batch: `t(n) = a + b n`, learned while it runs.

A run costs something once (the call, reading the weights) and something for each image; measured
on CPUs and GPUs alike the sum is close to a line until the device's memory ends. Clipper
(Crankshaw et al., NSDI 2017, 4.3.1) and BentoML's dispatcher fit the same line. Here it is done
online, as weighted least squares in five sums:

- **forgetting**: a run's weight falls by 5 % with every later one, so that some twenty runs count,
  and a machine that becomes slower is noticed within as many;
- **robust**: a run counts as at most four times what was expected. One stall of a minute moves the
  line by a fifth; a lasting change still moves it in a few runs;
- **what a batch saves** is remembered: `fixed_share` is learned only while runs of different sizes
  count, and kept while they do not;
- **one size only**: where all batches had the same size, the two unknowns cannot be told apart. A
  weak pull of `a` towards 0 (ridge) then gives the line through the origin, which is pessimistic
  for larger batches and optimistic for smaller ones: no batch runs that may take too long, and no
  image is refused that may well be answered in time;
- **large images**: the line is that of images of average cost; see `cost_share`.

Rejected: additive increase, multiplicative decrease of the batch size (Clipper's default), which
learns nothing about any other size and so cannot predict a wait; quantile regression (Clipper's
other way), which needs hundreds of runs; a table of sizes, which learns each size anew.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final, TypeVar

from fingerpost.basics.moving_average import ewma
from fingerpost.worker.engine.batching.cost_share import CostShare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fingerpost.worker.engine.batching.batch import Batch

__all__ = ["LatencyModel"]

T = TypeVar("T")

_KEEP: Final = 0.95
_LIMIT: Final = 4.0
_RIDGE: Final = 0.001
_ENOUGH: Final = 3
# What is added to the mean for a bound that holds most of the time, in mean absolute deviations,
# as TCP's retransmission timeout does (RFC 6298).
_DEVIATIONS: Final = 3.0
# Least variance of the sizes, over the square of their mean, that tells `a` and `b` apart: half of
# what one batch of two among sixteen single images has.
_LEAST_VARIANCE: Final = 0.01
_SHARE_WEIGHT: Final = 0.1


class LatencyModel:
    """Predicts the seconds that a batch takes from its number of images; see the module.

    Attributes:
        by_cost: what their cost adds to it.
    """

    def __init__(self) -> None:
        self._runs = 0
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._deviation = 0.0
        self._fixed = self._each = 0.0
        self._share: float | None = None
        self.by_cost = CostShare()

    @property
    def fixed_share(self) -> float | None:
        """`a / (a + b)`: 0 where the time is linear in the batch, 1 where it is the same for all.

        None until batches of two sizes have run.
        """
        return self._share

    @property
    def known(self) -> bool:
        """False before the third run; predictions are 0 until then."""
        return self._runs >= _ENOUGH

    def observe(self, size: int, took_s: float, cost: float = 0.0) -> None:
        """Learn from a run of `size` images that took so many seconds.

        Args:
            size: with padding.
            took_s: seconds.
            cost: of its images, on average; 0 if it is not known.
        """
        expected, by_cost = self._line(size), self.by_cost
        if cost > 0:
            by_cost.seen(cost)
        if self.known:
            if cost > 0:
                took_s = min(took_s, _LIMIT * expected * max(1.0, 1 + by_cost.excess(cost)))
                by_cost.observe(cost, took_s / expected - 1)
                took_s /= by_cost.factor(cost)
            took_s = min(took_s, _LIMIT * expected)
            self._deviation = ewma(self._deviation, abs(took_s - expected), 1 - _KEEP)
        self._runs += 1
        self._weight = _KEEP * self._weight + 1
        self._n = _KEEP * self._n + size
        self._nn = _KEEP * self._nn + size * size
        self._t = _KEEP * self._t + took_s
        self._nt = _KEEP * self._nt + size * took_s
        self._fit()

    def free_s(self, running: Mapping[Batch[T], float], now: float, most: int) -> list[float]:
        """Seconds until each of `most` concurrent batches may start, ascending.

        A run that is overdue is expected to take once more as long as it is overdue.
        """
        runs = running.items()
        left_s = [
            abs(self.predict(batch.size) * self.by_cost.factor(batch.cost) - (now - since))
            for batch, since in runs
        ]
        return sorted([*left_s, *[0.0] * (most - len(left_s))])

    def predict(self, size: int) -> float:
        """Seconds that a batch of `size` takes on average; 0 while too little is known."""
        return self._line(size) if self.known else 0.0

    def bound(self, size: int) -> float:
        """Seconds that a batch of `size` rarely exceeds; 0 while too little is known."""
        return self._line(size) + self.spread if self.known else 0.0

    def largest(self, sizes: Sequence[int], latency_s: float, current: int) -> int:
        """The largest of the sizes, ascending, of which two runs keep an objective; or the first.

        Args:
            current: the size until now, which stays where it is close to the objective: a smaller
                one delays items that were admitted under it, so noise is no reason for it.
        """
        if not self.known:
            return sizes[0]
        # The bound grows with the size.
        fitting = bisect_right(sizes, latency_s / 2, key=self.bound)
        largest = sizes[max(0, fitting - 1)]
        if largest < current and 2 * self.bound(current) <= 1.1 * latency_s:
            return current
        return largest

    @property
    def spread(self) -> float:
        """The seconds by which a run rarely exceeds its prediction."""
        return _DEVIATIONS * self._deviation

    def _line(self, size: int) -> float:
        return self._fixed + self._each * size

    def _fit(self) -> None:
        """Minimise `sum w (t - a - b n)^2 + ridge a^2`, then keep both at 0 or more."""
        weight = self._weight * (1 + _RIDGE)
        determinant = weight * self._nn - self._n * self._n
        fixed = (self._t * self._nn - self._n * self._nt) / determinant
        each = (weight * self._nt - self._n * self._t) / determinant
        if fixed < 0:
            fixed, each = 0.0, self._nt / self._nn
        elif each < 0:
            fixed, each = self._t / self._weight, 0.0
        # A clock may be too coarse for a model that does nothing.
        self._fixed, self._each = max(fixed, 1e-9), each
        self._learn_share()

    def _learn_share(self) -> None:
        """Learn `fixed_share`, without the pull of the ridge, where the sizes differ enough."""
        variance = self._weight * self._nn - self._n * self._n
        if not self.known or variance <= _LEAST_VARIANCE * self._n * self._n:
            return
        fixed = max(0.0, self._t * self._nn - self._n * self._nt)
        each = max(0.0, self._weight * self._nt - self._n * self._t)
        if fixed + each > 0:
            share = fixed / (fixed + each)
            known = share if self._share is None else self._share
            self._share = ewma(known, share, _SHARE_WEIGHT)
