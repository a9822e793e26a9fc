"""Batches of one bucket: who runs with whom, and that nobody waits for ever."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.buckets import BucketBatcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.fairness.flow import Flow
from tests.support.batchers import items, taught, ten_and_two


def buckets(max_batch: int = 4, max_queue: int = 64) -> BucketBatcher[int]:
    """Its items are numbers, whose bucket is the number of tens."""
    config = BatchingConfig(max_batch=max_batch, max_queue=max_queue)
    return BucketBatcher(config, bucket=lambda item: item // 10)


def test_the_first_in_the_order_says_which_bucket_runs() -> None:
    queue = buckets()
    for item in (1, 11, 2, 21, 12, 3, 4, 5):
        queue.submit(item, cost=1, now=0)
    runs = []
    while (batch := queue.poll(0)) is not None:
        runs.append(items(batch))
        queue.complete(0, batch)
    assert runs == [[1, 2, 3, 4], [11, 12], [21], [5]]
    assert queue.queued_cost == 0
    assert len(queue) == 0


@given(
    arriving=st.lists(st.lists(st.integers(0, 59), max_size=6), min_size=1, max_size=20),
    tenants=st.integers(1, 3),
)
def test_every_run_is_of_one_bucket_and_nobody_is_overtaken_for_ever(
    arriving: list[list[int]], tenants: int
) -> None:
    queue = buckets(max_queue=1000)
    flows = [Flow(tenant=str(each)) for each in range(tenants)]
    waited: dict[object, int] = {}
    ran: list[int] = []
    sent = [item for each in arriving for item in each]
    rounds = iter(arriving)
    now = 0.0
    while len(ran) < len(sent):
        for item in next(rounds, ()):
            flow = flows[item % tenants]
            pending = queue.submit(item, cost=1, now=now, flow=flow)
            waited[pending] = len(queue)
        if (batch := queue.poll(now)) is not None:
            assert len({item // 10 for item in items(batch)}) == 1
            assert 1 <= len(batch.items) <= 4
            ran += items(batch)
            if tenants == 1:  # no more runs before its own than there were items before it
                assert all(waited.pop(pending) >= 1 for pending in batch.items)
                waited = {pending: left - 1 for pending, left in waited.items()}
            queue.complete(now, batch)
        now += 0.01
    assert sorted(ran) == sorted(sent)


def test_one_bucket_is_a_plain_batcher() -> None:
    rng = random.Random(4)
    plain: Batcher[int] = Batcher(BatchingConfig(max_batch=4, max_queue=16))
    same = BucketBatcher(BatchingConfig(max_batch=4, max_queue=16), bucket=lambda item: 0)
    for queue in (taught(plain, ten_and_two), taught(same, ten_and_two)):
        assert queue.sizes.limit == 4
    now = 100.0
    for number in range(300):
        deadline = now + rng.choice([0.005, 0.02, 0.05, 10])
        if rng.random() < 0.6 and len(plain) < 16:
            outcomes = []
            for queue in (plain, same):
                try:
                    queue.submit(number, cost=1, now=now, deadline=deadline)
                    outcomes.append("")
                except Exception as error:
                    outcomes.append(str(error))
            assert outcomes[0] == outcomes[1]
        else:
            first, second = plain.poll(now), same.poll(now)
            assert items(first) == items(second)
            if first is not None and second is not None:
                assert [p.item for p in first.dropped] == [p.item for p in second.dropped]
                now += ten_and_two(len(first.items))
                plain.complete(now, first)
                same.complete(now, second)
        now += rng.random() * 0.01


def test_a_bucket_whose_items_are_all_late_does_not_stop_the_others() -> None:
    queue = buckets()
    taught(queue, ten_and_two)
    late = queue.submit(1, cost=1, now=100.0, deadline=100.013)
    queue.submit(11, cost=1, now=100.0)
    batch = queue.poll(100.01)
    assert batch is not None
    assert batch.dropped == (late,)
    assert items(batch) == []
    assert items(queue.poll(100.01)) == [11]
