"""The batcher with images of several tenants and classes."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow, PriorityClass
from tests.support.batchers import batcher, items, taught, ten_and_two

GREEDY, HONEST, HEAVY = Flow("greedy"), Flow("honest"), Flow("heavy", 0, 3.0)
BATCH = Flow("greedy", 1)
CLASSES = (PriorityClass("interactive"), PriorityClass("batch", 0.2))


def fill(queue: Batcher[int], flow: Flow, count: int, *, prepared: bool = True) -> None:
    for number in range(count):
        queue.submit(number, cost=1, now=0, flow=flow, prepared=prepared)


def owners(queue: Batcher[int], batches: int) -> Counter[str]:
    """Whose images the next batches have, each of which is followed by others like them."""
    found: Counter[str] = Counter()
    for now in range(batches):
        batch = queue.poll(now)
        assert batch is not None
        queue.complete(now + 1, batch)
        for pending in batch.items:
            found[pending.flow.tenant] += 1
            queue.submit(pending.item, cost=1, now=now, flow=pending.flow)
    return found


def test_batches_are_shared_by_weight_whoever_waits_most() -> None:
    queue = batcher(max_batch=4, max_queue=64)
    fill(queue, GREEDY, 40)
    fill(queue, HONEST, 8)
    fill(queue, HEAVY, 8)
    assert owners(queue, 500) == {"greedy": 400, "honest": 400, "heavy": 1200}


def test_a_newcomer_is_in_the_next_batch() -> None:
    queue = batcher(max_batch=4, max_queue=64)
    fill(queue, GREEDY, 60)
    for now in range(5):
        queue.complete(now, queue.poll(now))
    queue.submit(99, cost=1, now=9, flow=HONEST)
    assert 99 in items(queue.poll(9))


def test_decoders_are_shared_by_the_time_that_images_take() -> None:
    """An image of one tenant takes nine times as long to decode, which is known only then."""
    queue = batcher(max_batch=1, max_queue=64)
    fill(queue, GREEDY, 8, prepared=False)
    fill(queue, HONEST, 8, prepared=False)
    seconds: Counter[str] = Counter()
    for number in range(1000):
        pending = queue.prepare()
        assert pending is not None
        took_s = 0.09 if pending.flow is GREEDY else 0.01
        if number > 100:
            seconds[pending.flow.tenant] += round(100 * took_s)
        queue.prepared(pending, now=0, took_s=took_s)
        queue.complete(1, queue.poll(0))
        queue.submit(number, cost=1, now=0, flow=pending.flow, prepared=False)
    assert seconds["greedy"] == pytest.approx(seconds["honest"], rel=0.15)


def test_a_full_queue_has_places_for_those_with_less_than_their_share() -> None:
    queue = batcher(max_queue=8)
    fill(queue, GREEDY, 8)
    for number in range(4):
        queue.submit(100 + number, cost=1, now=0, flow=HONEST)
    assert [each.item for each in queue.pushed_out] == [7, 6, 5, 4]
    assert len(queue) == 8
    for flow in (GREEDY, HONEST):
        with pytest.raises(
            Overloaded, match=rf"tenant '{flow.tenant}' has its share of the places"
        ):
            queue.submit(9, cost=1, now=0, flow=flow)


def test_alone_a_tenant_has_the_whole_queue() -> None:
    queue = batcher(max_queue=8)
    fill(queue, GREEDY, 8)
    with pytest.raises(Overloaded, match="8 images wait for the model already: try") as caught:
        queue.submit(9, cost=1, now=0, flow=GREEDY)
    assert "tenant" not in str(caught.value)


def test_what_is_expected_of_a_tenant_is_its_own_wait() -> None:
    queue = taught(batcher(max_batch=2, max_queue=64), lambda size: 0.9 + 0.05 * size)
    fill(queue, GREEDY, 40)
    assert queue.expected_s(100.0, flow=GREEDY) > 19
    assert queue.expected_s(100.0, flow=HONEST) < 1.1
    queue.admit(100.0, 102.0, HONEST)
    with pytest.raises(DeadlineExceeded):
        queue.admit(100.0, 102.0, GREEDY)
    assert queue.expected_s(100.0, flow=BATCH) > 19
    fill(queue, BATCH, 9)
    assert queue.expected_s(100.0, flow=HONEST) < 1.1
    assert queue.expected_s(100.0, rank=0) < queue.expected_s(100.0)


def test_interactive_work_waits_for_the_run_under_way_and_no_other() -> None:
    queue = batcher(max_batch=4, max_queue=64)
    fill(queue, BATCH, 40)
    assert items(queue.poll(0)) == [0, 1, 2, 3]
    queue.submit(99, cost=1, now=0.5, flow=HONEST)
    queue.complete(1)
    assert items(queue.poll(1)) == [99]
    queue.complete(2)
    assert items(queue.poll(2)) == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("waited_s", "left_s", "expected"),
    [
        (0.0, math.inf, [99, *range(8, 15)]),
        (0.013, math.inf, [99, *range(8, 14)]),
        (0.026, math.inf, [99]),
        (1.0, math.inf, [99]),
        (0.013, 0.0165, [99, 8, 9]),
        (0.0, 0.0125, [99]),
    ],
)
def test_batch_work_has_the_places_left_within_a_full_runs_time_and_the_deadline(
    waited_s: float, left_s: float, expected: list[int]
) -> None:
    """A run of one takes 12 ms, a full one 26."""
    queue = taught(batcher(max_batch=8, max_queue=64), ten_and_two)
    fill(queue, BATCH, 40)
    assert items(queue.poll(100.0)) == [*range(8)]
    done = 100.0 + max(0.026, waited_s)
    queue.submit(99, cost=1, now=done - waited_s, deadline=done + left_s, flow=HONEST)
    queue.complete(done)
    assert items(queue.poll(done)) == expected


def test_batch_work_has_no_places_where_larger_batches_answer_no_more_images() -> None:
    queue = batcher(max_batch=8, max_queue=64)
    for size in (1, 8) * 20:
        queue._latency.observe(size, 0.01 * size)
    fill(queue, BATCH, 40)
    queue.complete(100.0, queue.poll(99.99))
    queue.submit(99, cost=1, now=100.0, flow=HONEST)
    assert items(queue.poll(100.0)) == [99]


def test_two_batches_at_once_share_what_is_ready_of_all_classes() -> None:
    queue = batcher(max_batch=8, max_queue=64, concurrent_batches=2)
    for size in (1, 8) * 20:
        queue._latency.observe(size, ten_and_two(size))
    queue.submit(99, cost=1, now=99.9, flow=HONEST)
    queue.complete(100.0, queue.poll(99.9), learn=False)
    fill(queue, BATCH, 7)
    queue.submit(99, cost=1, now=100.0, flow=HONEST)
    assert items(queue.poll(100.0)) == [99, 0, 1, 2]


def test_interactive_work_has_the_places_that_a_floor_leaves() -> None:
    queue = taught(batcher(max_batch=8, max_queue=64, classes=CLASSES), ten_and_two)
    queue.submit(0, cost=1, now=0.0, flow=BATCH)
    fill(queue, HONEST, 40)
    runs = []
    for _ in range(2):
        batch = queue.poll(100.0)
        assert batch is not None
        runs.append([pending.flow.rank for pending in batch.items])
        queue.complete(100.0, batch, learn=False)
    assert runs == [[0] * 8, [1, *[0] * 7]]


def test_places_that_would_be_padding_are_for_batch_work() -> None:
    queue = batcher(max_batch=4, max_queue=64, sizes=(2, 4))
    fill(queue, BATCH, 10)
    queue.submit(99, cost=1, now=0, flow=HONEST)
    assert items(queue.poll(0)) == [99, 0]


def test_batch_work_keeps_its_floor_beside_a_worker_full_of_interactive_work() -> None:
    queue = batcher(max_batch=4, max_queue=64)
    fill(queue, DEFAULT_FLOW, 40)
    fill(queue, BATCH, 20)
    found = owners(queue, 1000)
    assert found["greedy"] == pytest.approx(0.05 * 4000, rel=0.1)


def test_one_flow_after_another_is_first_come_first_served() -> None:
    queue = batcher(max_batch=2, max_queue=64)
    for flow in (GREEDY, HONEST, GREEDY):
        fill(queue, flow, 3)
        for now in range(2):
            queue.complete(now, queue.poll(now))
        assert queue.order.only is flow


def test_all_that_is_ready_may_be_too_late_while_more_is_to_come() -> None:
    queue = taught(batcher(max_queue=64), ten_and_two)
    for flow in (GREEDY, HONEST):
        queue.submit(1, cost=1, now=100.0, deadline=100.02, flow=flow)
    queue.submit(2, cost=1, now=100.0, flow=HONEST, prepared=False)
    batch = queue.poll(100.5)
    assert batch is not None
    assert (len(batch.items), len(batch.dropped), len(queue)) == (0, 2, 1)
    pending = queue.prepare()
    assert pending is not None
    queue.prepared(pending, now=100.5, took_s=0.01)
    assert items(queue.poll(100.5)) == [2]
    assert queue.order.only is HONEST


def test_what_was_cancelled_in_the_decoder_is_not_counted_once_there_are_several_tenants() -> None:
    queue = batcher(max_queue=64)
    fill(queue, GREEDY, 1, prepared=False)
    cancelled = queue.prepare()
    assert cancelled is not None
    queue.cancel(cancelled)
    fill(queue, GREEDY, 1, prepared=False)
    fill(queue, HONEST, 2, prepared=False)
    assert queue.order.counts == {GREEDY: 1, HONEST: 2}
    queue.prepared(cancelled, now=0, took_s=0.01)
    while (pending := queue.prepare()) is not None:
        queue.prepared(pending, now=0, took_s=0.01)
    queue.complete(1, queue.poll(0))
    assert (queue.order.counts, len(queue), queue.abandoned) == ({}, 0, 0)
    assert queue.order.only is not None
