"""What a `Batcher` handles: items that wait, and the batches that they run in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow

if TYPE_CHECKING:
    from fingerpost.worker.engine.fairness.queue import Account

__all__ = ["Batch", "Pending", "Stage"]

T = TypeVar("T")


class Stage(Enum):
    """Where an item is on its way through the batcher."""

    WAITING = "waiting to be prepared"
    PREPARING = "being prepared"
    READY = "ready for the model"
    RUNNING = "in the model"
    DONE = "answered, dropped or cancelled"


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """One submitted item.

    Attributes:
        item: what the caller submitted.
        cost: its share of `Batcher.queued_cost`.
        deadline: the latest time at which its answer is of use.
        since: when it was submitted, or became ready for the model.
        flow: its tenant and class.
        work: its cost, in units of a usual image, until it is prepared.
        key, account: its place in the order of all, and what is known of its flow, where there are
            several; see `FairOrder`.
    """

    item: T
    cost: float
    deadline: float
    since: float
    flow: Flow = DEFAULT_FLOW
    work: float = 1.0
    key: tuple[int, float, int] = (0, 0.0, 0)
    account: Account | None = None
    stage: Stage = Stage.WAITING


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch(Generic[T]):
    """What to run now.

    Attributes:
        items: the items to run, first come first; if empty, nothing runs.
        size: the number of images of the run, padding included.
        dropped: items that would be too late; answer them with `DeadlineExceeded`.
    """

    items: tuple[Pending[T], ...]
    size: int
    dropped: tuple[Pending[T], ...] = ()

    @property
    def cost(self) -> float:
        """Of an item, on average."""
        return sum([each.cost for each in self.items]) / max(1, len(self.items))
