"""The times at which the images of an open loop are due."""

from __future__ import annotations

from itertools import count, takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

__all__ = ["constant", "poisson"]


def constant(rate: float, seconds: float) -> Iterator[float]:
    """Times in seconds from the start, in equal steps from 0 on, `rate` of them a second."""
    return takewhile(lambda at: at < seconds, (number / rate for number in count()))


def poisson(rate: float, seconds: float, rng: Random) -> Iterator[float]:
    """Times in seconds from the start, as of independent callers: a Poisson process.

    The intervals are exponential with a mean of `1 / rate` seconds, so that images also come in
    bunches, as they do from many users. Equal steps do not show what bunches do to a queue.
    """
    at = rng.expovariate(rate)
    while at < seconds:
        yield at
        at += rng.expovariate(rate)
