"""What the batcher guarantees, over whatever happens in whatever order."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.worker.engine.batching.batch import Batch, Pending, Stage
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.booleans(), st.floats(0.05, 9), st.integers(0, 3)),
        st.tuples(st.just("prepare")),
        st.tuples(st.just("prepared"), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 99)),
        st.tuples(st.just("wait"), st.floats(0, 0.5)),
        st.tuples(st.just("poll")),
        st.tuples(st.just("complete"), st.floats(0, 0.4), st.integers(0, 2)),
    ),
    max_size=80,
)
OPTIONS = st.one_of(
    st.builds(
        BatchingConfig,
        max_batch=st.integers(1, 5),
        max_queue=st.integers(1, 9),
        max_wait_s=st.sampled_from([0.0, 0.0, 0.2]),
        latency_s=st.sampled_from([None, None, 0.3]),
    ),
    st.builds(
        BatchingConfig,
        max_batch=st.just(6),
        max_queue=st.integers(1, 9),
        sizes=st.sampled_from([(6,), (2, 6), (1, 2, 4, 6)]),
    ),
)


FLOWS = st.sampled_from(
    [
        [DEFAULT_FLOW],
        [Flow("other", 1)],
        [DEFAULT_FLOW, Flow("a", 0, 3.0), Flow("b", 0, 0.5)],
        [DEFAULT_FLOW, Flow("a", 0, 3.0), Flow("a", 1, 3.0), Flow("b", 1)],
    ]
)


@given(EVENTS, OPTIONS, st.integers(1, 3), FLOWS)
def test_every_item_has_one_end_and_every_bound_holds(
    events: list, options, concurrent_batches: int, flows: list[Flow]
) -> None:
    queue: Batcher[int] = Batcher(options, max_preparing=2, concurrent_batches=concurrent_batches)
    now = 0.0
    known: list[Pending[int]] = []
    ends: dict[int, str] = {}
    ready_order: list[int] = []
    ran: list[int] = []
    preparing: list[Pending[int]] = []
    running: list[Batch[int]] = []
    for number, event in enumerate(events):
        match event:
            case "submit", prepared, left_s, which:
                flow = flows[which % len(flows)]
                expected_s = queue.expected_s(now, flow=flow)
                try:
                    pending = queue.submit(
                        number,
                        cost=0.1,
                        now=now,
                        deadline=now + left_s,
                        prepared=prepared,
                        flow=flow,
                    )
                except (Overloaded, DeadlineExceeded):
                    continue
                while queue.pushed_out:
                    gone = queue.pushed_out.pop()
                    assert gone.flow is not flow
                    ends[gone.item] = "pushed out"
                assert now + expected_s <= now + left_s  # also where it was not looked at closely
                known.append(pending)
                if prepared:
                    ready_order.append(number)
            case ("prepare",):
                found = queue.prepare()
                if found is not None:
                    preparing.append(found)
                assert len(preparing) <= 2
            case "prepared", which if preparing:
                done = preparing.pop(which % len(preparing))
                if done.stage is Stage.PREPARING:
                    ready_order.append(done.item)
                queue.prepared(done, now=now, took_s=0.01)
            case "cancel", which if known:
                gone = known[which % len(known)]
                if gone.stage not in (Stage.RUNNING, Stage.DONE):
                    ends[gone.item] = "cancelled"
                queue.cancel(gone)
            case "wait", seconds:
                now += seconds
            case ("poll",):
                idle, some_ready = len(running) < concurrent_batches, queue.ready > 0
                wake = queue.next_wake(now)
                limit = queue.sizes.limit
                trusted = queue._estimate_is_valid(now)
                batch = queue.poll(now)
                if not (idle and some_ready):
                    assert batch is None
                    assert wake is None
                    continue
                if not options.max_wait_s:
                    assert batch is not None  # work-conserving
                if batch is None:
                    assert wake is not None
                    assert now < wake <= now + options.max_wait_s
                    continue
                assert len(batch.items) <= limit <= options.max_batch
                assert not options.sizes or not batch.items or batch.size in options.sizes
                assert len(batch.items) <= batch.size
                assert batch.items or batch.dropped
                planned_s = queue._latency.predict(batch.size) if trusted else 0
                for pending in batch.items:
                    assert pending.deadline >= now + planned_s  # never late by plan
                for pending in batch.dropped:
                    assert pending.item not in ends
                    ends[pending.item] = "dropped"
                if not batch.items:
                    assert all(each.stage is not Stage.READY for each in known)
                ran += [pending.item for pending in batch.items]
                if batch.items:
                    running.append(batch)
            case "complete", took_s, which if running:
                now += took_s
                done_now = running.pop(which % len(running))
                for pending in done_now.items:
                    assert pending.item not in ends
                    ends[pending.item] = "ran"
                queue.complete(now, done_now)
        assert len(queue) <= options.max_queue
        waiting = [p for p in known if p.stage in (Stage.WAITING, Stage.PREPARING, Stage.READY)]
        assert queue.queued_cost == pytest.approx(0.1 * len(waiting), abs=1e-9)
        assert queue.queued_cost >= 0
        assert len(queue) or not queue.queued_cost
        if queue.order.only is None:
            assert queue.order.counts == Counter(pending.flow for pending in waiting)
    if len(flows) == 1:
        assert ran == [item for item in ready_order if item in set(ran)]  # first come, first served
    open_ends = {p.item for p in known if p.stage is not Stage.DONE}
    assert open_ends | set(ends) == {pending.item for pending in known}
    assert not open_ends & set(ends)  # nothing lost, nothing answered twice


@given(
    st.integers(1, 5),
    st.integers(1, 20),
    st.floats(0, 1),
    st.lists(st.floats(0, 0.3), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.integers(1, 2),
)
def test_no_image_waits_longer_than_the_docstring_says(
    max_batch: int,
    max_queue: int,
    max_wait_s: float,
    gaps: list[float],
    run_s: float,
    concurrent_batches: int,
) -> None:
    """A run takes `run_s` whatever the batch; images come after `gaps`."""
    options = BatchingConfig(max_batch=max_batch, max_queue=max_queue, max_wait_s=max_wait_s)
    queue: Batcher[float] = Batcher(options, concurrent_batches=concurrent_batches)
    allowed: dict[Pending[float], float] = {}
    started = 0
    arrivals = [sum(gaps[: place + 1]) for place in range(len(gaps))]
    now = 0.0
    running: list[tuple[float, Batch[float]]] = []
    while arrivals or len(queue) or running:
        wake = queue.next_wake(now)
        ends = [at for at, _ in running[:1]]
        now = min([*arrivals[:1], *ends, math.inf if wake is None else wake])
        if [now] == ends:
            queue.complete(now, running.pop(0)[1])
        while arrivals and arrivals[0] <= now:
            ahead = queue.ready
            try:
                pending = queue.submit(arrivals.pop(0), cost=0, now=now)
            except Overloaded:
                assert ahead == max_queue
                continue
            runs = 1 + ahead // max_batch + (concurrent_batches - 1) * (2 + math.log2(max_batch))
            allowed[pending] = now + max_wait_s + runs * run_s
        while (batch := queue.poll(now)) is not None:
            running.append((now + run_s, batch))
            for pending in batch.items:
                started += 1
                assert now <= allowed[pending] + 1e-9
    assert started == len(allowed)
