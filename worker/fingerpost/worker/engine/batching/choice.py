"""Which of the ready images run as the next batch, and which are too late; see `batcher`."""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain, islice, takewhile
from math import inf
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from fingerpost.worker.engine.batching.batch import Pending

__all__ = ["choose"]

T = TypeVar("T")


def choose(
    own: Collection[Pending[T]],
    others: Sequence[Pending[T]],
    most: int,
    full: int,
    now: float,
    run_s: Callable[[int], float],
) -> tuple[list[Pending[T]], list[Pending[T]]]:
    """The items to run, and the items to drop.

    Args:
        own: the ready items of the class whose turn it is, the one that goes first before the
            others; one or more.
        others: those of other classes, likewise.
        most: most items of that class to run; where it has fewer, others may have the places left.
        full: the items of a run whose places are all taken.
        now: monotonic seconds.
        run_s: the seconds of a run of so many items; 0 while unknown.
    """
    if others and len(own) <= most:
        most = _filled(own, others, most, full, now, run_s)
    order = iter(own) if not others else chain(own, others)
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
    tightest = inf
    for before, pending in enumerate(live):
        tightest = min(tightest, pending.deadline)
        if now + run_s(before + 1) > tightest:
            return before
    return len(live)


def _rate(count: int, run_s: Callable[[int], float]) -> float:
    """Images a second in batches of `count`."""
    return count / run_s(count) if count else 0.0


def _filled(
    own: Collection[Pending[T]],
    others: Sequence[Pending[T]],
    size: int,
    full: int,
    now: float,
    run_s: Callable[[int], float],
) -> int:
    """How many items run where the places that a class leaves are for those of `others`.

    Each of the class is answered within its deadline, and within the time of a full run and of a
    run of its class alone since it was ready. So what later classes add, by the run under way that
    it waited for and by their places in its own, is the time of one full run at most. Items of
    earlier classes, which let a later one go first for its floor, may have all places.

    Args:
        size: the images of a run of the class alone.
    """
    longest_s = run_s(full) + run_s(size)
    if not longest_s:  # unknown
        return size
    if others[0].flow.rank < next(iter(own)).flow.rank:
        longest_s = inf
    end = min(min(each.since + longest_s, each.deadline) for each in own)
    return size + bisect_right(range(size + 1, full + 1), end - now, key=run_s)
