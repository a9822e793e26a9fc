"""Queues that tenants share fairly: decisions only, no clock, no threads.

**Start-time fair queueing** (Goyal, Vin and Cheng, SIGCOMM 1996). A flow is a tenant's items of one
class. An item that comes has the start tag `S = max(v - b / weight, F)`: `v` is the start tag of
the item that was served last, `F` the finish tag of the flow's item before it, `S + work / weight`,
and `b` the burst, 16 items. The least start tag goes first.

**The burst.** A flow that takes less than its share lags behind `v`, by `b` items at most. So the
items that it sends at once go before those of a flow that takes all it can get, and do not wait for
a turn of all flows each. In the paper `b` is 0. Then the others' 99th percentile beside a flow at
ten times its share is up to twice as long: nearly all of it are the second and third image of a
tenant that came together.

**The bound.** While two flows of a class both have items that wait, the work served of them, each
divided by its weight, differs by at most `c / w + c' / w'`, where `c` and `c'` are the greatest
work of one item of each (the paper's theorem 1), and the burst of the one that has saved it up,
`b / w`, on top. Batches add nothing to it, because they are filled item by item. What is cancelled
or dropped counts as served, unless it is its flow's newest. Where items pass two queues, with one
tag, the items between them come on top.

**Classes** go by strict priority, with a floor: while a class with floor `f` has items that are
ready, each item that is served of another class owes it `f / (1 - f)` items. Once it is owed a
batch, or all that it has ready, it goes first for one. So it gets at least the share `f` of the
items, less one batch.

**Work-conserving**: there is an item to serve as long as any waits.

With the items of one flow only, all is in the order of arrival, and nothing is computed.
Rejected: see decision 22 (`docs/decisions/0022-fair-queue.md`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from math import inf
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW
from fingerpost.worker.engine.fairness.places import gives_way

__all__ = ["Account", "FairOrder", "FairQueue", "Queued"]

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from fingerpost.worker.engine.fairness.flow import Flow

# Accounts of idle flows that are kept, at least.
_IDLE_FLOWS: Final = 32
# Weight of the newest sample in the mean time of preparing an item: as a unit, it moves slowly.
_SMOOTHING: Final = 0.01

Key = tuple[int, float, int]


class Account:
    """What an order knows of a flow, while there are several.

    Attributes:
        count: its items that were entered and have not left.
        finish: the finish tag of its newest item.
    """

    __slots__ = ("count", "finish")

    def __init__(self) -> None:
        self.count = 0
        self.finish = 0.0


class Queued(Protocol):
    """What waits.

    Attributes:
        flow: whose it is.
        work: its cost, in any one unit; above 0.
        key: its place in the order, the least first: rank, start tag, number.
        account: of its flow, once it is entered.
    """

    @property
    def flow(self) -> Flow: ...

    @property
    def work(self) -> float: ...

    key: Key
    account: Account | None


Q = TypeVar("Q", bound=Queued)


class FairOrder(Generic[Q]):
    """The order in which the items of one or two queues are served.

    Each item is entered once, and leaves once: served, cancelled or dropped.

    Args:
        floors: the least share of each class, the one that goes first before the others.
        waiting: makes a list of all items that were entered and have not left.

    Attributes:
        only: the flow of all items; None where there are several, which is when keys are used.
        virtual: the greatest start tag that was served.
    """

    def __init__(self, floors: tuple[float, ...], waiting: Callable[[], Iterable[Q]]) -> None:
        self._floors = floors
        self._waiting = waiting
        self._queues: list[FairQueue[Q]] = []
        self.only: Flow | None = DEFAULT_FLOW
        self._accounts: dict[Flow, Account] = {}
        self._most_accounts = _IDLE_FLOWS
        self._entered = 0
        self.virtual = self._usual_s = 0.0
        self._number = 0
        self._owed = [0.0] * len(floors)
        self._has_floors = any(floors)

    @property
    def counts(self) -> dict[Flow, int]:
        """The items of each flow that were entered and have not left, where there are several."""
        return {flow: each.count for flow, each in self._accounts.items() if each.count}

    def tenants(self) -> set[str]:
        """Whose items wait."""
        if self.only is None:
            return {flow.tenant for flow in self.counts}
        return {self.only.tenant} if any(self._queues) else set()

    def queue(self) -> FairQueue[Q]:
        """A new queue in this order."""
        made: FairQueue[Q] = FairQueue(self)
        self._queues.append(made)
        return made

    def enter(self, item: Q) -> None:
        """Give an item its place. Not needed for an item of the flow that is `only` there."""
        flow = item.flow
        if self.only is not None and not self._mix(flow):
            return
        account = self._accounts.get(flow)
        if account is None:
            account = self._open(flow)
        start, least = account.finish, self.virtual - flow.burst
        if start < least:
            start = least
        self._number += 1
        self._entered += 1
        item.key = (flow.rank, start, self._number)
        item.account = account
        account.count += 1
        account.finish = start + item.work / flow.weight

    def leave(self, item: Q) -> None:
        """Note that an item has left and was not served; only where there are several flows."""
        account, (_, start, _) = item.account, item.key
        if account is not None:
            account.count -= 1
            if account.finish == start + item.work / item.flow.weight:
                account.finish = start
        self._left(1, item.flow)

    def served(self, items: Sequence[Q]) -> None:
        """Note that items are served, and no longer in their queue; likewise."""
        virtual = self.virtual
        for item in items:
            start, account = item.key[1], item.account
            if start > virtual:
                virtual = start
            if account is not None:
                account.count -= 1
        self.virtual = virtual
        if not items:
            return
        if self._has_floors:
            self._owe(items)
        self._left(len(items), items[-1].flow)

    def _left(self, count: int, flow: Flow) -> None:
        """Note that so many items have left, the last one of this flow."""
        self._entered -= count
        if not self._entered:  # nobody has waited: all begin anew
            self.only = flow
            self._accounts.clear()
            self._owed = [0.0] * len(self._floors)
            self.virtual = 0.0

    def prepared(self, item: Q, took_s: float) -> None:
        """Count the work of an item's preparation, which is known only now, for the next ones.

        In units of the time that preparing a usual item takes.
        """
        usual_s = self._usual_s or took_s
        self._usual_s = usual_s = usual_s + _SMOOTHING * (took_s - usual_s)
        if usual_s and item.account is not None:
            item.account.finish += (took_s / usual_s - item.work) / item.flow.weight

    def new_key(self, flow: Flow) -> Key:
        """The place that a new item of a flow would have."""
        account, least = self._accounts.get(flow), self.virtual - flow.burst
        start = least if account is None else max(least, account.finish)
        return (flow.rank, max(start, 0.0), self._number + 1)

    def giver(self, flow: Flow, places: int) -> Flow | None:
        """Whose newest item makes place for one of `flow`, where no place is free: `gives_way`."""
        only = self.only
        if only is flow:
            return None
        counts = self.counts if only is None else {only: sum(map(len, self._queues))}
        return gives_way(counts, flow, places=places, floors=self._floors)

    def giving(self, flow: Flow, places: int) -> Q | None:
        """The item of `giver` that makes place: one of the first queue, if there is one."""
        giver = self.giver(flow, places)
        if giver is None:
            return None
        found = (queue.newest(giver) for queue in self._queues)
        return next((each for each in found if each is not None), None)

    def due(self, queue: FairQueue[Q], batch: int) -> int:
        """The class of a queue that is served next: one that is owed a batch, or the first."""
        first = queue.keys_[0][0]
        if self._has_floors:
            for rank in range(first + 1, len(self._floors)):
                owed = self._owed[rank]
                if owed >= 1.0 and owed >= min(batch, queue.of_rank(rank)) > 0:
                    return rank
        return first

    def _owe(self, items: Sequence[Q]) -> None:
        """Count items that are served, for the classes with a floor that have some ready."""
        keys, rank = self._queues[-1].keys_, items[0].key[0]
        alone = not keys or keys[-1][0] == keys[0][0] == rank
        if alone and not any(self._owed) and items[-1].key[0] == rank:
            return
        for item in items:
            self._owe_one(item.key[0])

    def _owe_one(self, rank: int) -> None:
        owed = self._owed
        if owed[rank] > 0.0:
            owed[rank] = max(0.0, owed[rank] - 1.0)
        keys = self._queues[-1].keys_
        if not keys or keys[-1][0] == keys[0][0] == rank:
            return
        for other, floor in enumerate(self._floors):
            if floor and other != rank and self._queues[-1].of_rank(other):
                owed[other] += floor / (1.0 - floor)

    def _open(self, flow: Flow) -> Account:
        """A new account for a flow; those that are idle and lag behind the burst are forgotten."""
        accounts = self._accounts
        if len(accounts) >= self._most_accounts:
            now = self.virtual
            self._accounts = accounts = {
                each: account
                for each, account in accounts.items()
                if account.count or account.finish > now - each.burst
            }
            self._most_accounts = 2 * len(accounts) + _IDLE_FLOWS
        account = accounts[flow] = Account()
        return account

    def _mix(self, flow: Flow) -> bool:
        """Begin to tell flows apart, if there are several now."""
        before = [each for each in self._waiting() if each.flow is not flow]
        if not before:
            self.only = flow
            return False
        self.only = None
        self._accounts.clear()
        self._entered = 0
        for each in self._waiting():
            self.enter(each)
        for queue in self._queues:
            queue.sort()
        return True


class FairQueue(OrderedDict[Q, None]):
    """The items that wait for one thing, such as a decoder or the model. Made by `FairOrder.queue`.

    As a dictionary it has them in the order of arrival. Add an item as to a dictionary, and `place`
    it where there are several flows: without a call for each image where there is one.
    """

    def __init__(self, order: FairOrder[Q]) -> None:
        super().__init__()
        self._order = order
        # Of all items, in their order, where there are several flows.
        self.keys_: list[Key] = []
        self._sorted: list[Q] = []

    def place(self, item: Q) -> None:
        """Sort in an item that was added, where there are several flows."""
        keys, key = self.keys_, item.key
        if not keys or key > keys[-1]:
            keys.append(key)
            self._sorted.append(item)
        else:
            at = bisect_left(keys, key)
            keys.insert(at, key)
            self._sorted.insert(at, item)

    def displace(self, item: Q) -> None:
        """Take an item that was removed out of the order, where there are several flows."""
        at = 0 if self._sorted[0] is item else bisect_left(self.keys_, item.key)
        del self.keys_[at], self._sorted[at]

    def served(self, items: list[Q]) -> None:
        """Note that items that were removed are served; only where there are several flows."""
        count = len(items)
        if self._sorted[:count] == items:
            del self.keys_[:count], self._sorted[:count]
        else:
            for item in items:
                self.displace(item)
        self._order.served(items)

    def remove(self, item: Q) -> None:
        """Remove an item."""
        del self[item]
        if self._order.only is None:
            self.displace(item)

    def pop_next(self) -> Q:
        """Remove and return the item that goes next; there must be one."""
        if self._order.only is not None:
            return self.popitem(last=False)[0]
        keys, items, at = self.keys_, self._sorted, 0
        if keys[0][0] != keys[-1][0]:
            at = self._from(self._order.due(self, 1))
        item = items[at]
        del self[item], keys[at], items[at]
        return item

    def next_class(self, batch: int) -> tuple[Collection[Q], Sequence[Q]]:
        """The items of the class that is served next, and those of the others, in their order.

        Those of the others are for the places of a batch that would otherwise be empty. No item
        may be removed meanwhile.

        Args:
            batch: most items of a batch; a class that is owed so many goes first.
        """
        if self._order.only is not None or not self:
            return self, ()
        keys, items = self.keys_, self._sorted
        if keys[0][0] == keys[-1][0]:
            return items, ()
        rank = self._order.due(self, batch)
        begin, end = self._from(rank), self._from(rank + 1)
        return items[begin:end], items[:begin] + items[end:]

    def ahead(self, flow: Flow) -> int:
        """How many items would be served before a new one of a flow, as things are now."""
        order = self._order
        if order.only is None:
            return bisect_left(self.keys_, order.new_key(flow))
        if order.only is flow or flow.rank > order.only.rank:
            return len(self)
        return 0

    def claimed(self, flow: Flow) -> int:
        """How many items are ahead of a new one of a flow, or are of flows below their share.

        Those that it passes might wait for another run. Simulated, a fourth as many do so then.
        """
        order = self._order
        if order.only is not None:
            return self.ahead(flow)
        rank, start, number = order.new_key(flow)
        return bisect_left(self.keys_, (rank, max(start, order.virtual), number))

    def up_to(self, rank: int) -> int:
        """How many items are of a class, or of those that go before it."""
        only = self._order.only
        if only is None:
            return self._from(rank + 1)
        return len(self) if only.rank <= rank else 0

    def of_rank(self, rank: int) -> int:
        """How many items are of a class, where there are several flows."""
        return self._from(rank + 1) - self._from(rank)

    def newest(self, flow: Flow) -> Q | None:
        """The item of a flow that came last; None if it has none."""
        return next((each for each in reversed(self) if each.flow is flow), None)

    def sort(self) -> None:
        """Sort all items, which have their keys now."""
        self._sorted = sorted(self, key=lambda item: item.key)
        self.keys_ = [item.key for item in self._sorted]

    def _from(self, rank: int) -> int:
        """Where the items of a class begin."""
        return bisect_left(self.keys_, (rank, -inf, 0))
