"""Exponentially weighted moving averages: the formula, and the weight of a sample by time."""

from __future__ import annotations

__all__ = ["ewma", "time_weight"]


def ewma(average: float, sample: float, weight: float) -> float:
    """The average after one more sample.

    Args:
        average: the average so far.
        sample: the new value, in the same unit.
        weight: of the new value, from 0 to 1; the average so far keeps the rest. At 0.1 the last
            ten samples make up two thirds of the average.
    """
    return average + weight * (sample - average)


def time_weight(pause_s: float, least: float, most: float, period_s: float = 1.0) -> float:
    """The weight of a sample that comes `pause_s` after the one before, for `ewma`.

    With a fixed weight an average forgets by samples, and one that gets few keeps its old value
    for long. Here it forgets by time as well: the weight grows with the pause, in proportion.

    Args:
        pause_s: seconds since the sample before.
        least: the weight where samples follow at once.
        most: the weight after a long pause; below 1, so that a single sample does not decide.
        period_s: a pause of so many seconds has a weight of 1, before `most` is applied.
    """
    weight = pause_s / period_s
    if weight < least:  # min and max would take longer than all the rest
        return least
    return most if weight > most else weight
