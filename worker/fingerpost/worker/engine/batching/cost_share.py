"""Which part of a run's time goes by the size of its images, learned while it runs.

Most models resize an image first, and take as long for a photograph as for a thumbnail. Those that
decode in their graph, or take images of any size, do not. The time of a run is that of so many
average images, times `1 + s (c - 1)`: `c` is the cost of its images over the average, and `s` the
share, between 0 and 1. Least squares through one point find `s`: what runs took beyond what was
expected of their number of images, against `c - 1`. A pull towards 0 (ridge) leaves it there
where images are alike, so that nothing can be learned and little depends on it.

Rejected: the cost as a third unknown of the line of `LatencyModel`, which for images of equal
size cannot be told apart from their number.
"""

from __future__ import annotations

from typing import Final

from fingerpost.basics.moving_average import ewma

__all__ = ["CostShare"]

# Some fifty runs count: the share is a property of the model, and not of the machine's mood.
_KEEP: Final = 0.98
_RIDGE: Final = 0.5
_LEAST_COST: Final = 1e-6  # a byte


class CostShare:
    """See the module. Costs are those of one image, the average of a run or of a queue."""

    def __init__(self) -> None:
        self._runs = 0
        self._mean = self._xx = self._xy = self._share = 0.0

    @property
    def share(self) -> float:
        """The part of the time that goes by cost."""
        return self._share

    def factor(self, cost: float) -> float:
        """The time of images of this average cost, over that of average images."""
        return 1 + self._share * self.excess(cost)

    def factor_behind(self, cost: float, images: int) -> float:
        """The same of images of this cost in all, and an average one more."""
        return self.factor((cost + self._mean) / (images + 1)) if self._share else 1.0

    def excess(self, cost: float) -> float:
        """By what part images of this average cost are larger than the average ones."""
        return cost / self._mean - 1 if self._mean else 0.0

    def observe(self, cost: float, excess_time: float) -> None:
        """Learn from a run.

        Args:
            cost: of its images, on average; 0 if it is not known.
            excess_time: by what part it took longer than so many average images.
        """
        excess = self.excess(cost)
        self._xx = _KEEP * self._xx + excess * excess
        self._xy = _KEEP * self._xy + excess * excess_time
        self._share = min(1.0, max(0.0, self._xy / (self._xx + _RIDGE)))

    def seen(self, cost: float) -> None:
        """Count a run in the average cost of an image."""
        if cost > 0:
            self._runs += 1
            self._mean = ewma(self._mean, max(cost, _LEAST_COST), max(1 - _KEEP, 1 / self._runs))
