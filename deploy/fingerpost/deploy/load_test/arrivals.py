"""When the images of an open loop are due."""

from __future__ import annotations

from itertools import count, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["constant", "poisson"]


def constant(rate: float, seconds: float) -> Iterator[float]:
    """Seconds from the start, in equal steps from 0 on, `rate` of them a second."""
    return takewhile(lambda at: at < seconds, (number / rate for number in count()))


def poisson(rate: float, seconds: float, rng: Random) -> Iterator[float]:
    """Seconds from the start, as of callers that know nothing of each other: a Poisson process.

    The gaps are exponential, `1 / rate` seconds in the mean, so that images also come in bunches,
    as they do from many users; equal steps never show what that does to a queue.
    """
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
