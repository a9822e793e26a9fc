"""The batcher as a table and a simulation: no clock, no threads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.registry import Overloaded
from fingerpost.worker.batching import Batcher


def batcher(max_batch: int = 4, max_queue: int = 8) -> Batcher[int]:
    return Batcher(max_batch=max_batch, max_queue=max_queue)


def items(batch: list) -> list[int]:
    return [pending.item for pending in batch]


def test_a_lone_item_runs_at_once() -> None:
    queue = batcher()
    queue.submit(1, cost=0.5, now=10.0)
    assert items(queue.take(10.0)) == [1]
    assert queue.running_since == 10.0


def test_while_one_batch_runs_the_next_gathers() -> None:
    queue = batcher()
    queue.submit(0, cost=1, now=0)
    queue.take(0)
    for item in range(1, 7):
        queue.submit(item, cost=1, now=0)
    assert queue.take(0) == []
    queue.complete()
    assert items(queue.take(1)) == [1, 2, 3, 4]
    queue.complete()
    assert items(queue.take(2)) == [5, 6]


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = batcher(max_queue=2)
    queue.submit(1, cost=1, now=0)
    queue.submit(2, cost=1, now=0)
    with pytest.raises(Overloaded, match="2 images wait") as caught:
        queue.submit(3, cost=1, now=0)
    assert caught.value.retry_after_s == 1.0


def test_cancelled_items_do_not_reach_the_model() -> None:
    queue = batcher()
    queue.submit(1, cost=1, now=0).cancelled = True
    assert queue.take(0) == []
    assert queue.running_since is None


def test_drain_gives_back_what_waits() -> None:
    queue = batcher()
    queue.submit(1, cost=2, now=0)
    assert items(queue.drain()) == [1]
    assert (len(queue), queue.queued_cost) == (0, 0.0)


@given(
    st.lists(
        st.one_of(st.tuples(st.just("submit"), st.floats(0, 9)), st.tuples(st.just("step"))),
        max_size=60,
    )
)
def test_order_and_bounds_hold_whatever_happens(events: list[tuple]) -> None:
    queue = batcher(max_batch=3, max_queue=5)
    submitted: list[int] = []
    ran: list[int] = []
    costs: dict[int, float] = {}
    for number, event in enumerate(events):
        if event[0] == "submit":
            try:
                queue.submit(number, cost=event[1], now=0)
            except Overloaded:
                assert len(queue) == 5
            else:
                submitted.append(number)
                costs[number] = event[1]
        else:
            queue.complete()
            batch = items(queue.take(0))
            assert len(batch) <= 3
            assert bool(batch) == (queue.running_since is not None)
            ran += batch
        waiting = submitted[len(ran) :]
        assert queue.queued_cost == pytest.approx(sum(costs[n] for n in waiting), abs=1e-9)
    assert ran == submitted[: len(ran)]  # first come, first served; nothing twice
