"""Seconds for a megabyte of image at a worker, as a moving average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fingerpost.basics.moving_average import ewma, time_weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fingerpost.worker.engine.batching.job import Job

__all__ = ["LatencyPerCost"]

# Weight of the newest sample in the moving averages of seconds and megabytes: the seconds since the
# sample before it, within these bounds. So few images are enough to show that the model is slow
# now, and a busy worker's figure has no noise that all clients would react to.
_SMOOTHING: Final = 0.05
_NEWEST: Final = 0.6
_LEAST_COST: Final = 1e-6


class LatencyPerCost:
    """Seconds for a megabyte of image that is at the worker alone.

    A ratio of two averages: in an average of ratios, the fixed cost of thumbnails would count as
    much as photographs.
    """

    def __init__(self) -> None:
        self._latency_s = self._cost = self._sampled = 0.0

    @property
    def s_per_mb(self) -> float:
        """The figure; 0 before the first image."""
        return self._latency_s / self._cost if self._cost else 0.0

    def observe(self, jobs: Sequence[Job], run_s: float, now: float) -> None:
        """Learn from a run.

        Args:
            jobs: its images.
            run_s: its seconds, as far as a lone image would have taken them.
            now: its end, in monotonic seconds.
        """
        weight = time_weight(now - self._sampled, _SMOOTHING, _NEWEST) if self._cost else 1.0
        self._sampled = now
        for job in jobs:
            self._latency_s = ewma(self._latency_s, job.decode_s + run_s, weight)
            self._cost = ewma(self._cost, max(job.cost, _LEAST_COST), weight)
            weight = _SMOOTHING  # the others of the batch follow without a pause
