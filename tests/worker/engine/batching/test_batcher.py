"""The batcher as tables and properties: no clock, no threads."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fingerpost.errors import ConfigurationError, DeadlineExceeded, Overloaded
from fingerpost.worker.engine.batching.batch import Batch, Pending, Stage
from fingerpost.worker.engine.batching.batcher import Batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.batching.latency_model import LatencyModel
from fingerpost.worker.models.manifest import BatchSpec
from tests.support.optional import not_none


def batcher(
    max_batch: int = 4,
    max_queue: int = 8,
    max_preparing: int = 1,
    concurrent_batches: int = 1,
    **options,
) -> Batcher[int]:
    chosen = BatchingConfig(max_batch=max_batch, max_queue=max_queue, **options)
    return Batcher(chosen, max_preparing=max_preparing, concurrent_batches=concurrent_batches)


def items(batch: Batch[int] | None) -> list[int]:
    return [] if batch is None else [pending.item for pending in batch.items]


def taught(queue: Batcher[int], line, *, until: float = 100.0) -> Batcher[int]:
    """A batcher that has seen runs of 1 and of its limit, the last of which ended at `until`."""
    sizes = [1, queue.limit] * 10
    start = until - sum(line(size) for size in sizes)
    for size in sizes:
        for item in range(size):
            queue.submit(item, cost=0, now=-math.inf)  # has waited for company long enough
        assert len(items(queue.poll(start))) == size
        start += line(size)
        queue.complete(start)
    return queue


def ten_and_two(size: int) -> float:
    """10 ms a run and 2 ms an image."""
    return 0.010 + 0.002 * size


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
    queue = taught(batcher(max_batch=2, max_queue=9, concurrent_batches=2), lambda size: 1.0 * size)
    for item in range(3):
        queue.submit(item, cost=0, now=100)
    assert items(queue.poll(100)) == [0, 1]
    assert queue.expected_s(100.5) == pytest.approx(2, rel=0.02)  # beside it, with the one left
    assert items(queue.poll(101)) == [2]
    assert queue.expected_s(101) == pytest.approx(1 + 1, rel=0.02)  # both end in a second
    for item in range(4):
        queue.submit(item, cost=0, now=101)
    assert queue.expected_s(101) == pytest.approx(1 + 2 + 1, rel=0.02)  # a full batch each first


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
    assert caught.value.retry_after_s == 1.0


def test_when_to_come_back_is_what_the_queue_takes() -> None:
    queue = taught(batcher(max_batch=2, max_queue=4), lambda size: 2.0 * size)
    queue.submit(0, cost=0, now=100)
    assert len(items(queue.poll(100))) == 1
    for item in range(4):
        queue.submit(item, cost=0, now=101)
    with pytest.raises(Overloaded) as caught:  # 1 s of the run, 2 full batches, its own run
        queue.admit(101)
    assert caught.value.retry_after_s == pytest.approx(1 + 4 + 4 + 2, rel=0.02)


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
    queue = taught(batcher(), lambda size: 0.010 * size)
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


# Options.


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch": 0},
        {"max_queue": 0},
        {"max_wait_s": -1},
        {"max_wait_s": math.nan},
        {"latency_s": 0},
        {"latency_s": math.inf},
        {"sizes": (1, 4)},
        {"sizes": (4, 2, 32)},
        {"sizes": (0, 32)},
    ],
)
def test_options_are_checked(wrong: dict) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        BatchingConfig(**wrong)


def test_what_the_models_file_says_wins() -> None:
    options = BatchingConfig(max_batch=32, max_wait_s=0.01)
    assert options.override(BatchSpec()) == options
    assert options.override(BatchSpec(sizes=(1, 8), latency_ms=50)) == BatchingConfig(
        max_batch=8, sizes=(1, 8), max_wait_s=0.01, latency_s=0.05
    )
    assert options.override(BatchSpec(max=4, max_wait_ms=0)) == BatchingConfig(max_batch=4)


# What is learned.


def test_the_line_is_found() -> None:
    model = LatencyModel()
    for size in (1, 7, 16, 3, 9, 30) * 10:
        model.observe(size, ten_and_two(size))
    assert model.predict(24) == pytest.approx(ten_and_two(24), rel=0.02)
    assert model.bound(24) >= model.predict(24)


def test_one_size_only_gives_the_line_through_the_origin() -> None:
    model = LatencyModel()
    for _ in range(20):
        model.observe(8, 0.080)
    assert model.predict(16) == pytest.approx(0.160, rel=0.01)
    assert model.predict(1) == pytest.approx(0.010, rel=0.01)


def test_a_stall_moves_little_and_a_lasting_change_gets_through() -> None:
    model = LatencyModel()
    for _ in range(100):
        model.observe(4, 0.020)
    model.observe(4, 60.0)
    assert model.predict(4) < 0.020 * 1.25
    for _ in range(60):
        model.observe(4, 1.0)
    assert model.predict(4) == pytest.approx(1.0, rel=0.1)
    for _ in range(120):
        model.observe(4, 0.020)
    assert model.predict(4) == pytest.approx(0.020, rel=0.2)


@given(
    st.lists(
        st.tuples(st.integers(1, 64), st.one_of(st.just(0.0), st.floats(1e-9, 100))), min_size=3
    )
)
def test_predictions_grow_with_the_size_and_are_never_negative(runs: list) -> None:
    model = LatencyModel()
    for size, took_s in runs:
        model.observe(size, took_s)
    predictions = [model.predict(size) for size in range(1, 65)]
    assert 0 < predictions[0] < math.inf
    assert predictions == sorted(predictions)


# Properties, over whatever happens in whatever order.

EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.booleans(), st.floats(0.05, 9)),
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


@given(EVENTS, OPTIONS, st.integers(1, 3))
def test_every_item_has_one_end_and_every_bound_holds(
    events: list, options, concurrent_batches: int
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
            case "submit", prepared, left_s:
                expected_s = queue.expected_s(now)
                try:
                    pending = queue.submit(
                        number, cost=0.1, now=now, deadline=now + left_s, prepared=prepared
                    )
                except (Overloaded, DeadlineExceeded):
                    continue
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
                limit = queue.limit
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
