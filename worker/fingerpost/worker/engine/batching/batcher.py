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

While an item is `alone`, nothing else is prepared or started, and it waits for what was.
Rejected: see decision 9 (`docs/decisions/0009-batching.md`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.registry.moving_average import ewma
from fingerpost.worker.engine.batching.batch import Batch, Pending, Stage
from fingerpost.worker.engine.batching.batch_sizes import BatchSizes
from fingerpost.worker.engine.batching.latency_model import LatencyModel

__all__ = ["Batcher"]

if TYPE_CHECKING:
    from fingerpost.worker.engine.batching.config import BatchingConfig

T = TypeVar("T")

# Seconds after the last run in which the estimates still refuse.
_ESTIMATE_VALID_S: Final = 1.0
# After a refusal, where too little is known of the model's times.
_RETRY_AFTER_S: Final = 0.1
# Seconds before the last moment at which a batch that waits for others starts: starting takes time.
_START_MARGIN_S: Final = 0.002
# Least images of one of several concurrent batches, where they are ready: with one at a time ONNX
# Runtime ran 3 % fewer (MobileNetV2 on 2 cores, in turn).
_MIN_SHARE: Final = 2
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
        abandoned: items that are being prepared, and were cancelled meanwhile.
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
        # Ordered, and a cancelled item in the middle is removed in constant time.
        self._unprepared: OrderedDict[Pending[T], None] = OrderedDict()
        self._preparing: set[Pending[T]] = set()
        self._ready: OrderedDict[Pending[T], None] = OrderedDict()
        self._running: dict[Batch[T], float] = {}  # with their start, the oldest first
        self._latency = LatencyModel()
        self.sizes = BatchSizes(config, self._latency, concurrent_batches)
        self._prepare_s = self._full_queue_s = 0.0
        self._last_run_at = -math.inf
        self.queued_cost = 0.0
        self.abandoned = 0
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

    def admit(self, now: float, deadline: float = math.inf) -> None:
        """Check whether an item would be accepted now; it is not submitted.

        Raises:
            Overloaded: `max_queue` items wait already, or they would take too long for the
                objective; `retry_after_s` is the time that they take.
            DeadlineExceeded: the deadline passes before the items in front of it are done.
        """
        config = self._config
        full = len(self) >= config.max_queue
        if not full and config.latency_s is None and deadline - now > self._longest_s(now):
            return  # without the estimate below, which takes longer than the rest of this method
        expected_s = self.expected_s(now)
        if full:
            raise Overloaded(
                f"{len(self)} images wait for the model already: "
                "try another worker, or this one later",
                retry_after_s=expected_s or _RETRY_AFTER_S,
            )
        if config.latency_s is not None:
            # A model that misses the objective with a single image may still run one image while
            # another waits.
            alone_s = self._prepare_s + self._latency.bound(config.padded_size(1))
            allowed_s = max(config.latency_s, 2 * alone_s)
            # With a margin for longer runs, and for a limit that falls meanwhile.
            careful_s = self.expected_s(now, ahead=self.sizes.limit // 4) + self._latency.spread
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

    def expected_s(self, now: float, *, ahead: int = 0) -> float:
        """Seconds from now to the answer for one more item; 0 while too little is known.

        Args:
            ahead: items in front of it that have not arrived yet.
        """
        if not self._estimate_is_valid(now):
            return 0.0
        predict, size = self._latency.predict, self._config.padded_size
        largest = self.sizes.useful(len(self) + ahead + 1)
        batches, rest = divmod(len(self) + ahead, largest)
        rounds, position = divmod(batches, self._concurrent_batches)
        own, model_s = rest + 1, 0.0
        if self._running:
            model_s = self._free_s(now)[position]
            # More will join it: as many as joined the last batch.
            own = max(own, min(len(next(reversed(self._running)).items), largest))
        model_s += rounds * predict(size(largest)) + predict(size(own))
        to_prepare = (len(self._unprepared) + len(self._preparing)) / self._max_preparing
        return max(model_s, self._prepare_s * (to_prepare + 1) + predict(size(1)))

    def forecast(self, now: float, ahead: int) -> tuple[float, float]:
        """`expected_s`, and the same for an item that is here alone; both 0 while unknown."""
        alone_s = self.sizes.alone_s
        if not alone_s:
            return 0.0, 0.0
        alone_s += self._prepare_s
        busy = ahead or self._running or len(self)
        return max(alone_s, self.expected_s(now, ahead=ahead) if busy else 0.0), alone_s

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
    ) -> Pending[T]:
        """Accept an item, or refuse it at once; never waits. Raises the errors of `admit`.

        Args:
            prepared: the item needs no preparation.
        """
        self.admit(now, deadline)
        pending = Pending(item, cost, deadline, now)
        self.queued_cost += cost
        if prepared:
            pending.stage = Stage.READY
            self._ready[pending] = None
        else:
            self._unprepared[pending] = None
        return pending

    def prepare(self) -> Pending[T] | None:
        """The next item to prepare; None if none waits, or `max_preparing` are being prepared."""
        if not self._unprepared or len(self._preparing) >= self._max_preparing:
            return None
        if (alone := self.alone) is not None:
            if alone.stage is not Stage.WAITING or self._preparing or self._running:
                return None
            self._unprepared.move_to_end(alone, last=False)
        pending, _ = self._unprepared.popitem(last=False)
        pending.stage = Stage.PREPARING
        self._preparing.add(pending)
        return pending

    def prepared(self, pending: Pending[T], *, now: float, took_s: float) -> None:
        """Note that an item of `prepare` is done: it is ready now, unless it was cancelled."""
        self._prepare_s = ewma(self._prepare_s or took_s, took_s, _SMOOTHING)
        self._preparing.discard(pending)
        if pending.stage is Stage.PREPARING:
            pending.stage, pending.since = Stage.READY, now
            self._ready[pending] = None
        else:
            self.abandoned -= 1
        self._remove_drift()

    def cancel(self, pending: Pending[T]) -> None:
        """Remove an item that does not run yet; without effect on one that runs or is done."""
        if pending.stage is Stage.WAITING:
            del self._unprepared[pending]
        elif pending.stage is Stage.READY:
            del self._ready[pending]
        elif pending.stage is Stage.PREPARING:
            self.abandoned += 1
        else:
            return
        self._leave(pending, Stage.DONE)
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
        size = config.padded_size(len(self._ready))
        last_start = min(pending.deadline for pending in self._ready) - self._run_s(size, now)
        oldest = next(iter(self._ready))
        return max(now, min(oldest.since + config.max_wait_s, last_start - _START_MARGIN_S))

    def poll(self, now: float) -> Batch[T] | None:
        """Start the next batch, if one may run and it is time; None if there is nothing to do."""
        wake = self.next_wake(now)
        if wake is None or wake > now:
            return None
        items, dropped = self._choose(now)
        for pending in dropped:
            self._take(pending, Stage.DONE)
        for pending in items:
            self._take(pending, Stage.RUNNING)
        self._remove_drift()
        batch = Batch(
            items=tuple(items), size=self._config.padded_size(len(items)), dropped=tuple(dropped)
        )
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
        if batch is None:
            batch = next(iter(self._running), None)
        if batch is None or batch not in self._running:
            return
        since = self._running.pop(batch)
        if self.alone in batch.items:
            self.alone = None
        self.running_since = next(iter(self._running.values()), None)
        if learn:
            self._latency.observe(batch.size, now - since)
            self.sizes.learned()
            # The run that is under way, all rounds before its own, and its own.
            size = self.sizes.useful(self._config.max_queue)
            rounds = 2 + self._config.max_queue // (size * self._concurrent_batches)
            self._full_queue_s = rounds * self._latency.predict(self._config.padded_size(size))
        for pending in batch.items:
            pending.stage = Stage.DONE
        self._last_run_at = now

    def drain(self) -> list[Pending[T]]:
        """Cancel and return all items that wait, for an engine that stops."""
        waiting = [*self._ready, *self._preparing, *self._unprepared]
        for pending in waiting:
            self.cancel(pending)
        return waiting

    def _free_s(self, now: float) -> list[float]:
        """Seconds until each of the concurrent batches may start, ascending.

        A run that is overdue is expected to take once more as long as it is overdue.
        """
        runs = self._running.items()
        left_s = [abs(self._latency.predict(batch.size) - (now - since)) for batch, since in runs]
        return sorted([*left_s, *[0.0] * (self._concurrent_batches - len(left_s))])

    def _choose(self, now: float) -> tuple[list[Pending[T]], list[Pending[T]]]:
        """The items to run and the items to drop; the module says why."""
        soonest = now + self._run_s(self._config.padded_size(1), now)
        if (alone := self.alone) is not None:
            return ([], [alone]) if alone.deadline < soonest else ([alone], [])
        most = self.sizes.next(len(self._ready))
        if self._concurrent_batches > 1:
            most = min(
                most, max(_MIN_SHARE, math.ceil(len(self._ready) / self._concurrent_batches))
            )
        live: list[Pending[T]] = []
        dropped: list[Pending[T]] = []
        for pending in self._ready:
            if pending.deadline < soonest:
                dropped.append(pending)
            else:
                live.append(pending)
                if len(live) == most:
                    break
        if len(live) == 1:
            return live, dropped
        finish = now + self._run_s(self._config.padded_size(len(live)), now)
        if all(pending.deadline >= finish for pending in live):
            return live, dropped
        first = self._in_time(live, now)
        fresh = list(islice((each for each in self._ready if each.deadline >= finish), len(live)))
        if self._rate(len(fresh), now) <= 2 * self._rate(first, now):
            return live[:first], dropped
        ahead = takewhile(lambda each: each is not fresh[-1], self._ready)
        return fresh, [each for each in ahead if each.deadline < finish]

    def _in_time(self, live: list[Pending[T]], now: float) -> int:
        """The most of the first items that run as one batch within all their deadlines."""
        tightest = math.inf
        for before, pending in enumerate(live):
            tightest = min(tightest, pending.deadline)
            if now + self._run_s(self._config.padded_size(before + 1), now) > tightest:
                return before
        return len(live)

    def _rate(self, count: int, now: float) -> float:
        """Images a second in batches of `count`."""
        return count / self._run_s(self._config.padded_size(count), now) if count else 0.0

    def _run_s(self, size: int, now: float) -> float:
        return self._latency.predict(size) if self._estimate_is_valid(now) else 0.0

    def _estimate_is_valid(self, now: float) -> bool:
        idle_s = 0.0 if self._running else now - self._last_run_at
        return self._latency.known and idle_s <= _ESTIMATE_VALID_S

    def _take(self, pending: Pending[T], stage: Stage) -> None:
        del self._ready[pending]
        self._leave(pending, stage)

    def _leave(self, pending: Pending[T], stage: Stage) -> None:
        pending.stage = stage
        if pending is self.alone and stage is Stage.DONE:
            self.alone = None
        self.queued_cost -= pending.cost

    def _remove_drift(self) -> None:
        """Remove the rounding errors that adding and subtracting costs leaves."""
        self.queued_cost = max(0.0, self.queued_cost) if len(self) else 0.0
