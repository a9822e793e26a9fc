"""The batcher as tables and properties: no clock, no threads."""

from __future__ import annotations

import pytest

from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.worker.engine.batching.batch import Stage
from tests.support.batchers import batcher, items, taught, ten_and_two
from tests.support.optional import not_none

# Gathering.


def test_a_lone_item_runs_at_once() -> None:
    queue = batcher()
    queue.submit(1, cost=0.5, now=10.0)
    assert queue.next_wake(10.0) == 10.0
    assert items(queue.poll(10.0)) == [1]
    assert queue.running_since == 10.0
    assert queue.next_wake(10.0) is None


def test_while_one_batch_runs_the_next_gathers() -> None:
    queue = batcher()
    queue.submit(0, cost=1, now=0)
    queue.poll(0)
    for item in range(1, 7):
        queue.submit(item, cost=1, now=0)
    assert queue.poll(0) is None
    queue.complete(1)
    assert items(queue.poll(1)) == [1, 2, 3, 4]
    queue.complete(2)
    assert items(queue.poll(2)) == [5, 6]


def test_two_lanes_run_at_once_and_each_takes_its_share() -> None:
    queue = batcher(max_queue=16, concurrent_batches=2)
    for item in range(11):
        queue.submit(item, cost=1, now=0)
    first, second = queue.poll(0), queue.poll(1)
    assert (items(first), items(second)) == ([0, 1, 2, 3], [4, 5, 6, 7])  # 4 at most
    assert (queue.poll(1), queue.next_wake(1), queue.running_since) == (None, None, 0)
    assert (len(queue), queue.present) == (3, 11)
    queue.complete(2, second)
    assert queue.running_since == 0
    third = queue.poll(2)
    assert items(third) == [8, 9]  # half of three
    queue.complete(3, third)
    queue.complete(3, third)  # without effect
    assert items(queue.poll(3)) == [10]
    assert queue.poll(3) is None
    queue.complete(4, first)
    assert (queue.present, queue.running_since) == (1, 3)


def test_what_two_lanes_take_is_expected_of_each_in_turn() -> None:
    queue = taught(
        batcher(max_batch=2, max_queue=9, concurrent_batches=2), lambda size: 0.2 + 0.8 * size
    )
    for item in range(3):
        queue.submit(item, cost=0, now=100)
    assert items(queue.poll(100)) == [0, 1]
    assert queue.expected_s(100.5) == pytest.approx(1.8, rel=0.02)  # beside it, with the one left
    assert items(queue.poll(101)) == [2]
    assert queue.expected_s(101) == pytest.approx(0.8 + 1, rel=0.02)  # one ends in 0.8 s
    for item in range(4):
        queue.submit(item, cost=0, now=101)
    assert queue.expected_s(101) == pytest.approx(
        0.8 + 1.8 + 1, rel=0.02
    )  # a full batch each first


def test_company_is_waited_for_only_while_idle_and_not_full() -> None:
    queue = batcher(max_batch=3, max_wait_s=0.5)
    queue.submit(1, cost=0, now=0)
    assert queue.poll(0) is None
    assert queue.next_wake(0.25) == 0.5
    queue.submit(2, cost=0, now=0.25)
    queue.submit(3, cost=0, now=0.3)  # full
    assert items(queue.poll(0.3)) == [1, 2, 3]
    queue.submit(4, cost=0, now=0.4)
    queue.complete(1.0)  # 4 has waited longer than it must
    assert items(queue.poll(1.0)) == [4]


def test_a_deadline_ends_the_wait_for_company() -> None:
    queue = taught(batcher(max_wait_s=0.5), ten_and_two)
    queue.submit(1, cost=0, now=100.0, deadline=100.1)
    wake = queue.next_wake(100.0)
    assert wake == pytest.approx(100.1 - 0.012 - 0.002, abs=1e-3)
    assert wake is not None
    assert items(queue.poll(wake)) == [1]


@pytest.mark.parametrize(
    ("waiting", "ran", "size"), [(1, 1, 2), (2, 2, 2), (3, 3, 8), (8, 8, 8), (9, 8, 8)]
)
def test_batches_are_padded_to_allowed_sizes(waiting: int, ran: int, size: int) -> None:
    queue = batcher(max_batch=8, max_queue=16, sizes=(2, 8))
    for item in range(waiting):
        queue.submit(item, cost=0, now=0)
    batch = queue.poll(0)
    assert batch is not None
    assert (len(batch.items), batch.size) == (ran, size)


# Refusing.


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    queue = batcher(max_queue=2)
    queue.submit(1, cost=1, now=0)
    queue.submit(2, cost=1, now=0, prepared=False)
    with pytest.raises(Overloaded, match="2 images wait") as caught:
        queue.submit(3, cost=1, now=0)
    assert caught.value.retry_after_s == 0.1  # its times are not known yet


def test_when_to_come_back_is_what_the_queue_takes() -> None:
    queue = taught(batcher(max_batch=2, max_queue=4), lambda size: 0.4 + 1.6 * size)
    queue.submit(0, cost=0, now=100)
    assert len(items(queue.poll(100))) == 1
    for item in range(4):
        queue.submit(item, cost=0, now=101)
    with pytest.raises(Overloaded) as caught:  # 1 s of the run, 2 full batches, its own run
        queue.admit(101)
    assert caught.value.retry_after_s == pytest.approx(1 + 3.6 + 3.6 + 2, rel=0.02)


def test_what_cannot_be_in_time_is_refused_at_once() -> None:
    queue = taught(batcher(), ten_and_two)
    queue.admit(100, deadline=100.013)
    with pytest.raises(DeadlineExceeded, match="allow more time"):
        queue.submit(1, cost=0, now=100, deadline=100.011)
    assert len(queue) == 0


def test_with_too_little_known_everything_is_let_in() -> None:
    queue = batcher()
    for _ in range(2):
        queue.submit(1, cost=0, now=0)
        queue.poll(0)
        queue.complete(50)
    assert queue.expected_s(50) == 0
    queue.admit(50, deadline=50.001)


def test_an_objective_that_cannot_be_kept_refuses_a_queue_and_no_lone_image() -> None:
    queue = taught(batcher(latency_s=0.001, max_preparing=1), ten_and_two)
    for item in range(3):
        pending = queue.submit(item, cost=0, now=100, prepared=False)
        assert queue.prepare() is pending
        queue.prepared(pending, now=100, took_s=0.5)
        assert items(queue.poll(100)) == [item]
        queue.complete(100, learn=False)
    queue.submit(3, cost=0, now=100, prepared=False)
    queue.submit(4, cost=0, now=100, prepared=False)
    with pytest.raises(Overloaded, match="objective of 0.001 s") as caught:
        queue.submit(5, cost=0, now=100, prepared=False)
    assert not_none(caught.value.retry_after_s) > 1


def test_an_estimate_is_doubted_when_nothing_has_run_for_a_second() -> None:
    queue = taught(batcher(), lambda size: 60.0)
    with pytest.raises(DeadlineExceeded):
        queue.admit(100.5, deadline=105)
    queue.submit(1, cost=0, now=101.5, deadline=105)
    assert items(queue.poll(101.5)) == [1]


def test_a_run_that_is_overdue_is_expected_to_take_as_long_again() -> None:
    queue = taught(batcher(), lambda size: 1.0)
    queue.submit(1, cost=0, now=100)
    queue.poll(100)
    assert queue.expected_s(100.5) == pytest.approx(0.5 + 1, rel=0.02)
    assert queue.expected_s(111) == pytest.approx(10 + 1, rel=0.02)


def test_images_being_decoded_count_in_the_queue_and_in_what_is_expected() -> None:
    queue = taught(batcher(max_queue=9, max_preparing=2), lambda size: 0.001)
    first = queue.submit(0, cost=0.5, now=100, prepared=False)
    assert queue.prepare() is first
    queue.prepared(first, now=100.4, took_s=0.4)
    queue.poll(100.4)
    queue.complete(100.401)
    for item in range(4):
        queue.submit(item, cost=0.5, now=100.4, prepared=False)
    assert (len(queue), queue.ready, queue.queued_cost) == (4, 0, 2.0)
    assert queue.expected_s(100.4) == pytest.approx(0.4 * 4 / 2 + 0.4, rel=0.02)


# Deadlines of what waits.


def test_the_hopeless_are_dropped_before_the_run() -> None:
    queue = taught(batcher(), ten_and_two)
    queue.submit(0, cost=0, now=100)
    queue.poll(100)
    for item, deadline in enumerate((101, 100.06, 101), start=1):
        queue.submit(item, cost=0, now=100, deadline=deadline)
    queue.complete(100.055, learn=False)
    batch = queue.poll(100.055)
    assert batch is not None
    assert items(batch) == [1, 3]
    assert [pending.item for pending in batch.dropped] == [2]


def test_a_passed_deadline_is_dropped_even_where_nothing_is_known() -> None:
    queue = batcher()
    queue.submit(1, cost=1, now=0, deadline=1)
    batch = queue.poll(2)
    assert batch is not None
    assert (items(batch), len(batch.dropped)) == ([], 1)
    assert (queue.running_since, queue.queued_cost, queue.poll(2)) == (None, 0, None)


def test_a_tight_deadline_makes_the_batch_smaller_where_that_costs_little() -> None:
    queue = taught(batcher(), lambda size: 0.002 + 0.009 * size)
    queue.submit(1, cost=0, now=100, deadline=100.025)
    for item in (2, 3, 4):
        queue.submit(item, cost=0, now=100)
    batch = queue.poll(100)
    assert batch is not None
    assert (items(batch), batch.dropped) == ([1, 2], ())


def test_a_tight_deadline_is_dropped_where_it_would_cost_the_others_too_much() -> None:
    queue = taught(batcher(max_batch=8, max_queue=16), lambda size: 0.020 + 0.001 * size)
    queue.submit(1, cost=0, now=100, deadline=100.0215)
    for item in range(2, 10):
        queue.submit(item, cost=0, now=100)
    batch = queue.poll(100)
    assert batch is not None
    assert items(batch) == list(range(2, 10))
    assert [pending.item for pending in batch.dropped] == [1]


# Leaving.


@pytest.mark.parametrize("stage", [Stage.WAITING, Stage.PREPARING, Stage.READY])
def test_cancelled_items_do_not_reach_the_model(stage: Stage) -> None:
    queue = batcher()
    pending = queue.submit(1, cost=1, now=0, prepared=stage is Stage.READY)
    if stage is Stage.PREPARING:
        assert queue.prepare() is pending
    assert pending.stage is stage
    queue.cancel(pending)
    queue.cancel(pending)
    if stage is Stage.PREPARING:
        queue.prepared(pending, now=1, took_s=1)
    assert (queue.poll(1), queue.prepare(), len(queue), queue.queued_cost) == (None, None, 0, 0)


def test_cancelling_what_runs_changes_nothing() -> None:
    queue = batcher()
    pending = queue.submit(1, cost=1, now=0)
    queue.poll(0)
    queue.cancel(pending)
    assert pending.stage is Stage.RUNNING
    queue.complete(1)
    assert (pending.stage, len(queue)) == (Stage.DONE, 0)


def test_drain_gives_back_all_that_waits() -> None:
    queue = batcher()
    queue.submit(1, cost=2, now=0)
    for item in (2, 3):
        queue.submit(item, cost=2, now=0, prepared=False)
    preparing = queue.prepare()
    assert preparing is not None
    assert [pending.item for pending in queue.drain()] == [1, 2, 3]
    queue.prepared(preparing, now=1, took_s=1)
    assert (len(queue), queue.queued_cost, queue.poll(0)) == (0, 0.0, None)


def test_the_forecast_is_of_an_image_that_comes_now_and_of_one_alone() -> None:
    queue = taught(batcher(max_batch=4, max_queue=9), ten_and_two)
    assert queue.forecast(500, 0) == pytest.approx((0.012, 0.012), rel=0.02)  # long idle
    queue.submit(0, cost=0, now=100)
    assert len(items(queue.poll(100))) == 1
    expected_s, alone_s = queue.forecast(100.004, 0)
    assert (expected_s, alone_s) == pytest.approx((0.008 + 0.012, 0.012), rel=0.02)
    expected_s, _ = queue.forecast(100.004, 4)  # behind four that are being uploaded
    assert expected_s == pytest.approx(0.008 + 0.018 + 0.012, rel=0.02)
    assert batcher().forecast(0, 3) == (0, 0)  # nothing is known


# Alone.


def test_an_item_alone_waits_for_what_was_begun_and_nothing_begins_beside_it() -> None:
    queue = batcher(max_preparing=2, concurrent_batches=2)
    queue.submit(0, cost=0, now=0)
    running = queue.poll(0)
    first, second = (queue.submit(number, cost=0, now=0, prepared=False) for number in (1, 2))
    assert queue.prepare() is first
    queue.submit(3, cost=0, now=0)
    alone = queue.alone = queue.submit(4, cost=0, now=0, prepared=False)
    assert (queue.prepare(), queue.poll(0)) == (None, None)
    queue.prepared(first, now=1, took_s=1)
    assert (queue.prepare(), queue.poll(1)) == (None, None)
    queue.complete(1, running)
    assert queue.poll(1) is None  # it comes before the ready ones
    assert queue.prepare() is alone  # and before the one that was there before it
    assert (queue.prepare(), queue.poll(1)) == (None, None)
    queue.prepared(alone, now=2, took_s=1)
    assert (queue.prepare(), queue.next_wake(2)) == (None, 2)
    batch = queue.poll(2)
    assert items(batch) == [4]
    assert (queue.prepare(), queue.poll(2)) == (None, None)
    queue.complete(3, batch)
    assert queue.alone is None
    assert queue.prepare() is second
    assert items(queue.poll(3)) == [3, 1]


@pytest.mark.parametrize("stage", [Stage.WAITING, Stage.PREPARING, Stage.READY])
def test_the_others_go_on_when_an_item_alone_is_cancelled(stage: Stage) -> None:
    queue = batcher(max_preparing=2)
    queue.submit(5, cost=0, now=0)
    alone = queue.alone = queue.submit(4, cost=0, now=0, prepared=False)
    if stage is not Stage.WAITING:
        assert queue.prepare() is alone
    if stage is Stage.READY:
        queue.prepared(alone, now=0, took_s=0)
    queue.cancel(alone)
    assert queue.alone is None
    assert items(queue.poll(0)) == [5]


def test_an_item_alone_that_is_late_is_dropped() -> None:
    queue = taught(batcher(), ten_and_two)
    queue.submit(5, cost=0, now=100)
    queue.alone = queue.submit(6, cost=0, now=100, deadline=100.02)
    batch = not_none(queue.poll(100.015))
    assert (batch.items, [each.item for each in batch.dropped]) == ((), [6])
    assert queue.alone is None
    assert items(queue.poll(100.015)) == [5]
