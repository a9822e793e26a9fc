"""Whose place in a full queue goes to somebody who has less than his share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fingerpost.worker.engine.fairness.flow import Flow

__all__ = ["gives_way"]


def gives_way(
    counts: Mapping[Flow, int], new: Flow, *, places: int, floors: Sequence[float]
) -> Flow | None:
    """The flow whose newest item makes place for one of `new`; None: the new one is refused.

    First a class that goes behind that of the new item, down to its floor's share of the places:
    the flow there with the most items for its weight. Then a flow of the same class that has more
    for its weight than the new flow would have, so that places are always shared more evenly
    afterwards. Then, if the class of the new item has less than its floor's share of the places,
    one of a class before it.

    Args:
        counts: the items of each flow that may give way.
        new: whose item comes.
        places: most items in the queue.
        floors: of the classes, the one that goes first before the others.
    """
    by_rank = [0] * len(floors)
    for flow, count in counts.items():
        by_rank[flow.rank] += count
    for rank in range(len(floors) - 1, new.rank, -1):
        if by_rank[rank] > floors[rank] * places:
            return _greediest(counts, rank)
    found = _greediest(counts, new.rank)
    own = (counts.get(new, 0) + 1) / new.weight
    if found is not None and found is not new and counts[found] / found.weight > own:
        return found
    if by_rank[new.rank] < floors[new.rank] * places:
        for rank in range(new.rank - 1, -1, -1):
            if by_rank[rank]:
                return _greediest(counts, rank)
    return None


def _greediest(counts: Mapping[Flow, int], rank: int) -> Flow | None:
    """The flow of a class with the most items for its weight."""
    return max(
        (flow for flow in counts if flow.rank == rank),
        key=lambda flow: counts[flow] / flow.weight,
        default=None,
    )
