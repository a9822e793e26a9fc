"""Which of the ready images run as the next batch, and which are too late; see `batcher`."""

from __future__ import annotations

from itertools import islice, takewhile
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fingerpost.worker.engine.batching.batch import Pending

__all__ = ["choose"]

T = TypeVar("T")


def choose(
    order: Iterator[Pending[T]], most: int, now: float, run_s: Callable[[int], float]
) -> tuple[list[Pending[T]], list[Pending[T]]]:
    """The items to run, and the items to drop.

    Args:
        order: the ready items, the one that goes first before the others.
        most: most items to run.
        now: monotonic seconds.
        run_s: the seconds of a run of so many items; 0 while unknown.
    """
    soonest = now + run_s(1)
    live: list[Pending[T]] = []
    dropped: list[Pending[T]] = []
    for pending in order:
        if pending.deadline < soonest:
            dropped.append(pending)
        else:
            live.append(pending)
            if len(live) == most:
                break
    if len(live) == 1:
        return live, dropped
    finish = now + run_s(len(live))
    if all(pending.deadline >= finish for pending in live):
        return live, dropped
    first = _in_time(live, now, run_s)
    # All from the first on: those of the batch, and those behind it.
    rest = [*live, *order]
    fresh = list(islice((each for each in rest if each.deadline >= finish), len(live)))
    if _rate(len(fresh), run_s) <= 2 * _rate(first, run_s):
        return live[:first], dropped
    ahead = takewhile(lambda each: each is not fresh[-1], rest)
    late = [each for each in ahead if each.deadline < finish]
    return fresh, [*dropped, *late]


def _in_time(live: list[Pending[T]], now: float, run_s: Callable[[int], float]) -> int:
    """The most of the first items that run as one batch within all their deadlines."""
    tightest = float("inf")
    for before, pending in enumerate(live):
        tightest = min(tightest, pending.deadline)
        if now + run_s(before + 1) > tightest:
            return before
    return len(live)


def _rate(count: int, run_s: Callable[[int], float]) -> float:
    """Images a second in batches of `count`."""
    return count / run_s(count) if count else 0.0
