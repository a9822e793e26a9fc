"""When an answer is late enough to send the image to a second worker."""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

__all__ = ["HedgeDelay"]

_SAMPLES: Final = 200
_LEAST: Final = 20
_EVERY: Final = 10
_QUANTILE: Final = 0.95


class HedgeDelay:
    """The 95th percentile of the last 200 times from the end of an upload to its answer.

    It counts from the end of the upload, because before that a slow link is not a sign of a slow
    worker, and a second upload would share the link. At the 95th percentile one request in twenty
    is sent twice, which shortens the tail nearly as well as earlier hedges (Dean and Barroso, 'The
    Tail at Scale', 2013). Rejected: a fixed delay, which is right for one model only.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        self._unseen = 0  # answers since the percentile was determined
        self._delay_s = inf

    @property
    def delay_s(self) -> float:
        """Seconds to wait after the upload; infinite until 20 answers have come."""
        if self._unseen >= _EVERY and len(self._seconds) >= _LEAST:
            self._unseen = 0
            ordered = sorted(self._seconds)
            self._delay_s = ordered[int(_QUANTILE * len(ordered))]
        return self._delay_s

    def answered(self, compute_s: float) -> None:
        """Record an answer that came `compute_s` after its upload."""
        self._seconds.append(compute_s)
        self._unseen += 1
