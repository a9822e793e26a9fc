"""What the fair queue guarantees, whatever comes in whatever order."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from fingerpost.worker.engine.fairness.flow import Flow
from fingerpost.worker.engine.fairness.queue import Account, FairOrder, FairQueue

BURST = 16  # as the module says
EPSILON = 1e-9
FLOW_OF = {"a": Flow("a", 0, 1), "b": Flow("b", 0, 3), "c": Flow("c", 0, 1)}


@dataclass(slots=True, eq=False)
class Item:
    flow: Flow
    work: float = 1.0
    key: tuple[int, float, int] = (0, 0.0, 0)
    account: Account | None = None


class Queue:
    """One queue in an order of its own, used as the batcher does."""

    def __init__(self, floors: tuple[float, ...] = (0.0,)) -> None:
        self.order: FairOrder[Item] = FairOrder(floors, lambda: list(self.items))
        self.items: FairQueue[Item] = self.order.queue()

    def add(self, item: Item) -> None:
        if item.flow is not self.order.only:
            self.order.enter(item)
        self.items[item] = None
        if self.order.only is None:
            self.items.place(item)

    def take(self, item: Item, *, served: bool = True) -> None:
        if served:
            del self.items[item]
            if self.order.only is None:
                self.items.served([item])
            return
        self.items.remove(item)
        if self.order.only is None:
            self.order.leave(item)

    def pop(self) -> Item:
        item = self.items.pop_next()
        if self.order.only is None:
            self.order.served([item])
        return item

    def counts(self) -> Counter[Flow]:
        return Counter(each.flow for each in self.items)


FLOWS = st.lists(
    st.builds(Flow, st.just("t"), st.integers(0, 2), st.sampled_from([0.5, 1.0, 2.0, 5.0])),
    min_size=1,
    max_size=5,
)
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4), st.floats(0.1, 8)),
        st.tuples(st.just("add"), st.integers(0, 4), st.just(1.0)),
        st.tuples(st.just("pop")),
        st.tuples(st.just("batch"), st.integers(1, 6)),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
    ),
    max_size=120,
)


@given(FLOWS, EVENTS)
def test_every_item_leaves_once_and_there_is_one_as_long_as_any_waits(
    flows: list[Flow], events: list
) -> None:
    queue = Queue((0.0, 0.1, 0.2))
    waiting: OrderedDict[Item, None] = OrderedDict()
    for event in events:
        match event:
            case "add", which, work:
                item = Item(flows[which % len(flows)], work)
                waiting[item] = None
                queue.add(item)
            case ("pop",) if waiting:
                del waiting[queue.pop()]
            case "batch", size if waiting:
                own, others = queue.items.next_class(size)
                taken = [*own, *others]
                assert set(taken) == set(waiting)
                assert len({each.flow.rank for each in own}) == 1
                for each in taken[:size]:
                    queue.take(each)
                    del waiting[each]
            case "cancel", which if waiting:
                item = list(waiting)[which % len(waiting)]
                queue.take(item, served=False)
                del waiting[item]
        assert list(queue.items) == list(waiting)
        if queue.order.only is None:
            assert queue.order.counts == Counter(each.flow for each in waiting)
        for flow in flows:
            here = [each for each in waiting if each.flow is flow]
            assert queue.items.newest(flow) is (here[-1] if here else None)
            assert queue.items.up_to(flow.rank) == sum(e.flow.rank <= flow.rank for e in waiting)
            assert 0 <= queue.items.ahead(flow) <= queue.items.claimed(flow) <= len(waiting)


@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 5.0]), min_size=2, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0.1, 8), st.integers(0, 2)), max_size=150),
    st.booleans(),
)
def test_two_that_wait_are_as_far_apart_as_the_docstring_says(
    weights: list[float], events: list, cancelling: bool
) -> None:
    """From any moment on, as long as both wait: the difference of their shares has a bound."""
    flows = [Flow(str(number), 0, weight) for number, weight in enumerate(weights)]
    queue = Queue()
    for flow in flows:
        queue.add(Item(flow))
        queue.add(Item(flow))
    largest = dict.fromkeys(flows, 1.0)
    first, second = flows[0], flows[1]
    shares = [0.0]  # of the first, less that of the second, since both have waited
    for which, work, taken in events:
        flow = flows[which % len(flows)]
        largest[flow] = max(largest[flow], work)
        queue.add(Item(flow, work))
        newest = queue.items.newest(flow)
        if cancelling and taken == 2 and newest is not None and queue.counts()[flow] > 1:
            queue.take(newest, served=False)
            continue
        for _ in range(taken):
            if len(queue.items) <= 1:
                break
            item = queue.pop()
            share = item.work / item.flow.weight
            change = share * ((item.flow is first) - (item.flow is second))
            shares.append(shares[-1] + change)
            counts = queue.counts()
            if first not in counts or second not in counts:
                shares = [0.0]
        bound = largest[first] / first.weight + largest[second] / second.weight
        bound += BURST / min(first.weight, second.weight)
        assert max(shares) - min(shares) <= bound + EPSILON


@given(st.lists(st.sampled_from(["add", "pop", "batch", "cancel"]), max_size=80))
def test_one_flow_is_served_in_the_order_of_arrival(events: list[str]) -> None:
    flow = Flow("only", 1, 0.3)
    queue = Queue((0.0, 0.1))
    waiting: list[Item] = []
    for event in events:
        if event == "add":
            waiting.append(Item(flow))
            queue.add(waiting[-1])
        elif waiting and event == "pop":
            assert queue.pop() is waiting.pop(0)
        elif waiting and event == "cancel":
            queue.take(waiting.pop(), served=False)
        elif waiting:
            own, others = queue.items.next_class(2)
            assert (list(own), others) == (waiting, ())
        assert queue.items.ahead(flow) == len(waiting)


def served(queue: Queue, count: int) -> Counter[str]:
    """The tenants of the next items, each of which is replaced by another one at once."""
    found: Counter[str] = Counter()
    for _ in range(count):
        item = queue.pop()
        queue.add(Item(item.flow, item.work))
        found[item.flow.tenant] += 1
    return found


def test_weights_and_costs_are_kept() -> None:
    queue = Queue()
    for tenant, work in (("a", 1), ("b", 1), ("c", 4)):
        for _ in range(9):
            queue.add(Item(FLOW_OF[tenant], work))
    assert served(queue, 4250) == {"a": 1000, "b": 3000, "c": 250}


def test_who_comes_back_has_saved_up_a_burst_and_who_was_just_served_is_not_forgotten() -> None:
    a, b = FLOW_OF["a"], FLOW_OF["c"]
    queue = Queue()
    for _ in range(200):
        queue.add(Item(a))
    queue.add(Item(b))
    for _ in range(50):
        queue.take(next(iter(queue.items.next_class(1)[0])))
    order = []
    for _ in range(BURST + 12):
        if b not in queue.counts():
            queue.add(Item(b))  # one at a time, again as soon as it was served
        item = queue.pop()
        order.append(item.flow.tenant)
    assert order[:BURST] == ["c"] * BURST
    assert order.count("c") == BURST + 6


def beside(greedy: Flow, modest: Flow) -> Queue:
    """A queue that has served 60 of 400 items of one flow; then 3 of another one have come."""
    queue = Queue()
    for _ in range(400):
        queue.add(Item(greedy))
    queue.add(Item(Flow("third")))
    for _ in range(60):
        queue.pop()
    for _ in range(3):
        queue.add(Item(modest))
    return queue


def test_a_burst_of_one_that_takes_less_than_its_share_goes_before_what_others_have_waiting() -> (
    None
):
    greedy, modest = Flow("greedy"), Flow("modest")
    queue = beside(greedy, modest)
    assert queue.items.ahead(modest) == 3
    assert [queue.pop().flow for _ in range(4)] == [modest, modest, modest, greedy]


def test_items_that_a_new_one_would_pass_have_claimed_their_places() -> None:
    greedy, modest, new = Flow("greedy"), Flow("modest"), Flow("new")
    queue = beside(greedy, modest)
    assert queue.items.ahead(new) == 1
    assert queue.items.claimed(new) == 3
    assert queue.items.claimed(greedy) == queue.items.ahead(greedy) == 400 - 59 + 3


def test_what_is_known_later_is_charged_later() -> None:
    a, c = FLOW_OF["a"], FLOW_OF["c"]
    queue = Queue()
    found: Counter[str] = Counter()
    for flow in (a, c):
        for _ in range(3):
            queue.add(Item(flow))
    for number in range(2000):
        item = queue.items.pop_next()
        queue.order.prepared(item, 3.0 if item.flow is a else 1.0)
        queue.order.served([item])
        queue.add(Item(item.flow))
        if number >= 1000:
            found[item.flow.tenant] += 1
    assert abs(found["a"] - 250) <= 10


def test_a_class_goes_before_the_next_which_keeps_its_floor() -> None:
    first, last = Flow("a", 0), Flow("b", 1)
    queue = Queue((0.0, 0.05))
    for _ in range(9):
        queue.add(Item(last))
        queue.add(Item(first))
    found = served(queue, 2000)
    assert found["b"] == 100
    none = Queue((0.0, 0.0))
    for _ in range(9):
        none.add(Item(last))
        none.add(Item(first))
    assert served(none, 100) == {"a": 100}


def test_a_class_that_is_owed_a_batch_goes_first_for_one() -> None:
    first, last = Flow("a", 0), Flow("b", 1)
    queue = Queue((0.0, 0.5))
    for _ in range(20):
        queue.add(Item(last))
        queue.add(Item(first))
    ranks = []
    for _ in range(6):
        batch = list(queue.items.next_class(4)[0])[:4]
        for item in batch:
            queue.take(item)
        ranks.append(batch[0].flow.rank)
    assert ranks == [0, 1, 0, 1, 0, 1]


def test_flows_that_are_idle_are_forgotten() -> None:
    queue = Queue()
    busy = Flow("busy")
    for _ in range(3):
        queue.add(Item(busy))
    for number in range(2000):
        queue.add(Item(Flow(str(number))))
        queue.pop()
        queue.add(Item(busy))
        queue.pop()
    assert len(queue.order._accounts) < 100
