"""Exponential back-off with jitter: how long to wait before an operation is tried again.

Pure: the number of earlier attempts and the random source are passed in. The ranges of jitter are
those of the AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), which measured that
full jitter causes the fewest calls in all, and equal jitter never retries at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from random import Random

__all__ = ["EQUAL_JITTER", "FULL_JITTER", "Backoff"]

FULL_JITTER: Final = (0.0, 1.0)
"""Between no delay and the whole one: callers spread the most."""

EQUAL_JITTER: Final = (0.5, 1.0)
"""Between half the delay and the whole one: callers spread, and none retries at once."""

# Beyond this exponent every delay is at its cap; it keeps the power within a float's range.
_MAX_EXPONENT: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The delays between attempts: `base_s`, multiplied by `factor` each time, up to `cap_s`.

    Attributes:
        base_s: the first delay before jitter, in seconds.
        cap_s: the longest delay before jitter, in seconds.
        factor: by how much each delay is longer than the one before.
        jitter: the range of the random factor that `delay_s` multiplies a delay with.
    """

    base_s: float
    cap_s: float
    factor: float = 2.0
    jitter: tuple[float, float] = FULL_JITTER

    def nominal_s(self, attempt: int) -> float:
        """The delay before attempt 0, 1, 2, ... is repeated, in seconds, without jitter."""
        return min(self.cap_s, self.base_s * self.factor ** min(attempt, _MAX_EXPONENT))

    def delay_s(self, attempt: int, rng: Random) -> float:
        """The delay before attempt 0, 1, 2, ... is repeated, in seconds, with jitter."""
        return self.nominal_s(attempt) * rng.uniform(*self.jitter)
