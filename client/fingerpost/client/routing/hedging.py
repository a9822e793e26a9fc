"""When an answer is late enough to ask a second worker."""

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
    """The 95th percentile of the last 200 times between an upload's end and its answer.

    Counted from the end of the upload, because before it a slow link is no sign of a slow worker
    and a second upload would share it. At the 95th percentile a twentieth of the requests is sent
    twice, which cuts the tail nearly as well as earlier hedges (Dean and Barroso, 'The Tail at
    Scale', 2013). Rejected: a fixed delay, which is wrong for every model but one.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_SAMPLES)
        self._added = 0
        self._delay_s = inf

    @property
    def delay_s(self) -> float:
        """Seconds after the upload; infinite until 20 answers were seen."""
        return self._delay_s

    def answered(self, compute_s: float) -> None:
        """An answer came so long after its upload."""
        self._seconds.append(compute_s)
        self._added += 1
        if len(self._seconds) >= _LEAST and self._added % _EVERY == 0:
            ordered = sorted(self._seconds)
            self._delay_s = ordered[int(_QUANTILE * len(ordered))]
