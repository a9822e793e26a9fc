"""Gather single images into batches: decisions only, no clock, no threads.

Work-conserving: the model is never idle while an image is ready for it. An image that finds the
model idle runs at once, in a batch of one; those that arrive meanwhile form the next batch. So the
batch size follows the load, and no image waits for others unless `max_wait_s` asks for it.

**The longest wait.** An image that is ready with `q` others before it starts after at most

    max_wait_s + (1 + floor(q / B)) t(B)        q < max_queue, B = max_batch, t(B) a run's time

seconds: the run that is under way, and the full batches before its own. `max_wait_s` counts only
where the model is idle and the batch not full. Where two batches run at once, each takes half of
the ready images, and the wait is at most another `t(B) + (1 + log2 B) t(0)`: the next batches are
`B` images, or half of those left. Decoding comes before: with `d` seconds an image and `w` threads
at most `ceil(max_queue / w) d`. Where deadlines are short, or batches are smaller for an objective
or because larger ones do not pay (`BatchSizes`), it may be more runs of a shorter time.

**Deadlines.** How long a run takes is learned (`LatencyModel`). An image whose deadline would pass
before a run of one could end is dropped before it runs. If the batch as a whole would be too late
for some images, it is a smaller batch of the first in the queue, which is fair, or the full batch
without the late ones, where that answers more than twice as many images a second (the early drop
of Nexus, Shen et al., SOSP 2019, 4.3, drops always): an overloaded model remains useful.

**Adaptive.** With `latency_s` the batch is the largest with `2 t(B) <= latency_s`, `t` with a
margin for its spread: an image that just missed one run is answered by the next. What is more than
the model can answer is refused: `Overloaded` where the expected time is above the objective.

**Estimates expire.** They refuse and drop only while the model runs, and for a second after. So a
wrong estimate that would refuse everything is corrected by the next image.

**Tenants** and priority classes share both queues, that before the decoders and that before the
model: see `FairOrder`. The longest wait above is for one of them alone. Later classes add the time
of one full run to it, at most: see `choice`.

While an item is `alone`, nothing else is prepared or started, and it waits for what was. Rejected:
see decision 9 (`docs/decisions/0009-batching.md`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fingerpost.basics.moving_average import ewma
from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.worker.engine.batching.batch import Batch, Pending, Stage
from fingerpost.worker.engine.batching.batch_sizes import BatchSizes
from fingerpost.worker.engine.batching.choice import choose
from fingerpost.worker.engine.batching.latency_model import LatencyModel
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow
from fingerpost.worker.engine.fairness.queue import FairOrder

__all__ = ["Batcher"]

if TYPE_CHECKING:
    from fingerpost.worker.engine.batching.config import BatchingConfig

T = TypeVar("T")

_ESTIMATE_VALID_S: Final = 1.0  # after the last run; so long the estimates still refuse
_RETRY_AFTER_S: Final = 0.1  # after a refusal, where too little is known of the model's times
# Seconds before the last moment at which a batch that waits for others starts: starting takes time.
_START_MARGIN_S: Final = 0.002
# Weight of the newest sample in the moving average of the time that preparing takes.
_SMOOTHING: Final = 0.1


class Batcher(Generic[T]):
    """A bounded queue before one model. Times are seconds of any one monotonic clock.

    An item is submitted, prepared where it needs that (`prepare`, `prepared`), and then runs in one
    batch (`poll`, `complete`), unless it is dropped or cancelled before.

    Args:
        config: see `BatchingConfig`.
        max_preparing: most items that are prepared at once.
        concurrent_batches: most batches that run at once. Each takes its share of the ready items,
            so that none is left without.

    Attributes:
        queued_cost: the costs of all items that wait, added up.
        sizes: how large its batches may be and should be.
        order: what waits, in the order in which it goes.
        abandoned: items that are being prepared, and were cancelled meanwhile.
        pushed_out: items that gave way to others; whoever calls `submit` refuses and removes them.
        alone: an item that is prepared and run with nothing beside it; set after its `submit`, and
            None again from its end on.
        running_since: the start of the oldest batch that runs; None while none does.
    """

    def __init__(
        self, config: BatchingConfig, *, max_preparing: int = 1, concurrent_batches: int = 1
    ) -> None:
        self._config = config
        self._max_preparing = max_preparing
        self._concurrent_batches = concurrent_batches
        self.order: FairOrder[Pending[T]] = FairOrder(config.floors, self._waiting)
        self._unprepared = self.order.queue()
        self._preparing: set[Pending[T]] = set()
        self._ready = self.order.queue()
        self._running: dict[Batch[T], float] = {}  # with their start, the oldest first
        self._latency = LatencyModel()
        self.sizes = BatchSizes(config, self._latency, concurrent_batches)
        self._prepare_s = self._full_queue_s = 0.0
        self._last_run_at = -math.inf
        self.queued_cost = 0.0
        self.abandoned = 0
        self.pushed_out: list[Pending[T]] = []
        self.alone: Pending[T] | None = None
        self.running_since: float | None = None

    def __len__(self) -> int:
        """The number of items that wait, those being prepared among them."""
        return len(self._unprepared) + len(self._preparing) + len(self._ready)

    @property
    def present(self) -> int:
        """The number of items that wait or run."""
        running = sum(len(batch.items) for batch in self._running) if self._running else 0
        return len(self) + running

    @property
    def ready(self) -> int:
        """The number of items that wait for the model alone."""
        return len(self._ready)

    def admit(self, now: float, deadline: float = math.inf, flow: Flow = DEFAULT_FLOW) -> bool:
        """Check whether an item would be accepted now; return whether in the place of another.

        Raises:
            Overloaded: `max_queue` items wait already, and none of them has to give way; or they
                would take too long for the objective; `retry_after_s` is the time that they take.
            DeadlineExceeded: the deadline passes before the items in front of it are done.
        """
        config = self._config
        crowded = len(self) >= config.max_queue
        full = crowded and self.order.giver(flow, config.max_queue) is None
        if not full and config.latency_s is None and deadline - now > self._longest_s(now):
            return crowded  # without the estimate below, which takes longer than all else here
        expected_s = self.expected_s(now, flow=flow)
        if full:
            waiting = f"{len(self)} images wait for the model already"
            if self.order.only is not flow:
                waiting += f", and tenant {flow.tenant!r} has its share of the places (max_queue)"
            raise Overloaded(
                f"{waiting}: try another worker, or this one later",
                retry_after_s=expected_s or _RETRY_AFTER_S,
            )
        if config.latency_s is not None:
            # A model that misses the objective with a single image may still run one image while
            # another waits.
            alone_s = self._prepare_s + self._latency.bound(config.padded_size(1))
            allowed_s = max(config.latency_s, 2 * alone_s)
            # With a margin for longer runs, and for a limit that falls meanwhile.
            careful_s = (
                self.expected_s(now, ahead=self.sizes.limit // 4, flow=flow) + self._latency.spread
            )
            if careful_s > allowed_s:
                raise Overloaded(
                    f"an answer would take {expected_s:.3g} s, over the objective of "
                    f"{config.latency_s:g} s: try another worker, or this one later",
                    retry_after_s=expected_s,
                )
        if now + expected_s > deadline:
            raise DeadlineExceeded(
                f"an answer would take {expected_s:.3g} s, but only {max(0.0, deadline - now):.3g} "
                "s are left: allow more time, or use another worker"
            )
        return crowded

    def expected_s(
        self, now: float, *, ahead: int = 0, flow: Flow | None = None, rank: int | None = None
    ) -> float:
        """Seconds from now to the answer for one more item; 0 while too little is known.

        Args:
            ahead: items in front of it that have not arrived yet.
            flow: whose item it is; None for one behind all others.
            rank: of its class, behind all others of which and before it is.
        """
        if not self._estimate_is_valid(now):
            return 0.0
        unprepared, ready = len(self._unprepared), len(self._ready)
        if rank is not None:
            unprepared, ready = self._unprepared.up_to(rank), self._ready.up_to(rank)
        elif flow is not None and flow is not self.order.only:
            unprepared, ready = self._unprepared.claimed(flow), self._ready.claimed(flow)
        ahead += unprepared + len(self._preparing) + ready
        predict, size = self._latency.predict, self._config.padded_size
        largest = self.sizes.useful(ahead + 1)
        batches, rest = divmod(ahead, largest)
        rounds, position = divmod(batches, self._concurrent_batches)
        own, model_s = rest + 1, 0.0
        if self._running:
            model_s = self._latency.free_s(self._running, now, self._concurrent_batches)[position]
            # More will join it: as many as joined the last batch.
            own = max(own, min(len(next(reversed(self._running)).items), largest))
        queue_s = rounds * predict(size(largest)) + predict(size(own))
        if rank is None and (flow is None or flow is self.order.only):
            queue_s *= self._latency.by_cost.factor_behind(self.queued_cost, len(self))
        to_prepare = (unprepared + len(self._preparing)) / self._max_preparing
        return max(model_s + queue_s, self._prepare_s * (to_prepare + 1) + predict(size(1)))

    def forecast(self, now: float, ahead: int, rank: int | None = None) -> tuple[float, float]:
        """`expected_s`, and the same for an item that is here alone; both 0 while unknown."""
        alone_s = self.sizes.alone_s
        if not alone_s:
            return 0.0, 0.0
        alone_s += self._prepare_s
        busy = ahead or self._running or len(self)
        return max(alone_s, self.expected_s(now, ahead=ahead, rank=rank) if busy else 0.0), alone_s

    def _longest_s(self, now: float) -> float:
        """An upper bound of `expected_s` for any item that has a place in the queue."""
        queue = self._config.max_queue
        running_s = now - next(iter(self._running.values())) if self._running else 0.0
        return running_s + self._full_queue_s + self._prepare_s * (queue / self._max_preparing + 1)

    def submit(
        self,
        item: T,
        *,
        cost: float,
        now: float,
        deadline: float = math.inf,
        prepared: bool = True,
        flow: Flow = DEFAULT_FLOW,
    ) -> Pending[T]:
        """Accept an item, or refuse it at once; never waits. Raises the errors of `admit`.

        Args:
            prepared: the item needs no preparation.
            flow: whose it is; one that gave its place to it is in `pushed_out`.
        """
        crowded = self.admit(now, deadline, flow)
        if crowded and (giving := self.order.giving(flow, self._config.max_queue)) is not None:
            self.cancel(giving)
            self.pushed_out.append(giving)
        pending = Pending(item, cost, deadline, now, flow)
        if flow is not self.order.only:
            self.order.enter(pending)
        self.queued_cost += cost
        queue = self._unprepared
        if prepared:
            pending.stage, queue = Stage.READY, self._ready
        queue[pending] = None
        if self.order.only is None:
            queue.place(pending)
        return pending

    def prepare(self) -> Pending[T] | None:
        """The next item to prepare; None if none waits, or `max_preparing` are being prepared."""
        if not self._unprepared or len(self._preparing) >= self._max_preparing:
            return None
        if (alone := self.alone) is not None:
            if alone.stage is not Stage.WAITING or self._preparing or self._running:
                return None
            self._unprepared.remove(alone)
            pending = alone
        else:
            pending = self._unprepared.pop_next()
        pending.stage = Stage.PREPARING
        self._preparing.add(pending)
        return pending

    def prepared(self, pending: Pending[T], *, now: float, took_s: float) -> None:
        """Note that an item of `prepare` is done: it is ready now, unless it was cancelled."""
        self._prepare_s = ewma(self._prepare_s or took_s, took_s, _SMOOTHING)
        if self.order.only is None:
            self.order.prepared(pending, took_s)
        self._preparing.discard(pending)
        if pending.stage is Stage.PREPARING:
            pending.stage, pending.since = Stage.READY, now
            self._ready[pending] = None
            if self.order.only is None:
                self._ready.place(pending)
        else:
            self.abandoned -= 1
        self._remove_drift()

    def cancel(self, pending: Pending[T]) -> None:
        """Remove an item that does not run yet; without effect on one that runs or is done."""
        if pending.stage is Stage.WAITING:
            self._unprepared.remove(pending)
        elif pending.stage is Stage.READY:
            self._ready.remove(pending)
        elif pending.stage is Stage.PREPARING:
            self.abandoned += 1
        else:
            return
        self._leave(pending)
        self._remove_drift()

    def next_wake(self, now: float) -> float | None:
        """When `poll` next has something to do if nothing changes; None if never.

        Later than `now` only where items wait for others, as `max_wait_s` allows.
        """
        if len(self._running) == self._concurrent_batches or not self._ready:
            return None
        if self.alone is not None:
            return now if self.alone.stage is Stage.READY and not self._running else None
        config = self._config
        if not config.max_wait_s or len(self._ready) >= self.sizes.limit:
            return now
        run_s = self._run_s(len(self._ready), now)
        last_start = min(pending.deadline for pending in self._ready) - run_s - _START_MARGIN_S
        return max(now, min(next(iter(self._ready)).since + config.max_wait_s, last_start))

    def poll(self, now: float) -> Batch[T] | None:
        """Start the next batch, if one may run and it is time; None if there is nothing to do."""
        wake = self.next_wake(now)
        if wake is None or wake > now:
            return None
        items, dropped = self._choose(now)
        for pending in dropped:
            self._ready.remove(pending)
            self._leave(pending)
        for pending in items:
            del self._ready[pending]
            pending.stage = Stage.RUNNING
            self.queued_cost -= pending.cost
        if self.order.only is None:
            self._ready.served(items)
        self._remove_drift()
        size = self._config.padded_size(len(items))
        batch = Batch(items=tuple(items), size=size, dropped=tuple(dropped))
        if items:
            self._running[batch] = now
            self.running_since = next(iter(self._running.values()))
        return batch

    def complete(self, now: float, batch: Batch[T] | None = None, *, learn: bool = True) -> None:
        """Note that a batch of `poll` has run, so that the next may start.

        Args:
            batch: by default the oldest that runs.
            learn: whether its time is that of one usual run.
        """
        batch = batch or next(iter(self._running), None)
        if batch is None or batch not in self._running:
            return
        since = self._running.pop(batch)
        if self.alone in batch.items:
            self.alone = None
        self.running_since = next(iter(self._running.values()), None)
        if learn:
            self._latency.observe(batch.size, now - since, batch.cost)
            self.sizes.learned()
            # The run that is under way, all rounds before its own, and its own.
            size = self.sizes.useful(self._config.max_queue)
            rounds = 2 + self._config.max_queue // (size * self._concurrent_batches)
            self._full_queue_s = rounds * self._latency.predict(self._config.padded_size(size))
        for pending in batch.items:
            pending.stage = Stage.DONE
        self._last_run_at = now

    def ahead(self, flow: Flow) -> int:
        """How many of the items that wait would be served before a new one of a flow."""
        return self._unprepared.ahead(flow) + len(self._preparing) + self._ready.ahead(flow)

    def _waiting(self) -> list[Pending[T]]:
        preparing = (each for each in self._preparing if each.stage is Stage.PREPARING)
        return [*self._ready, *preparing, *self._unprepared]

    def drain(self) -> list[Pending[T]]:
        """Cancel and return all items that wait, for an engine that stops."""
        waiting = self._waiting()
        for pending in waiting:
            self.cancel(pending)
        return waiting

    def _choose(self, now: float) -> tuple[list[Pending[T]], list[Pending[T]]]:
        """The items to run and the items to drop; the module says why."""
        if (alone := self.alone) is not None:
            return ([], [alone]) if alone.deadline < now + self._run_s(1, now) else ([alone], [])
        own, others = self._ready.next_class(self.sizes.limit)
        most, full = self.sizes.next(len(own)), self.sizes.full(len(self._ready) if others else 0)
        return choose(own, others, most, full, now, lambda images: self._run_s(images, now))

    def _run_s(self, images: int, now: float) -> float:
        known, size = self._estimate_is_valid(now), self._config.padded_size
        return self._latency.predict(size(images)) if known else 0.0

    def _estimate_is_valid(self, now: float) -> bool:
        idle_s = 0.0 if self._running else now - self._last_run_at
        return self._latency.known and idle_s <= _ESTIMATE_VALID_S

    def _leave(self, pending: Pending[T]) -> None:
        """Note that an item has left without a run."""
        pending.stage = Stage.DONE
        if pending is self.alone:
            self.alone = None
        self.queued_cost -= pending.cost
        if self.order.only is None:
            self.order.leave(pending)

    def _remove_drift(self) -> None:
        """Remove the rounding errors that adding and subtracting costs leaves."""
        self.queued_cost = max(0.0, self.queued_cost) if len(self) else 0.0
