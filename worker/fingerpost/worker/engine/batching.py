"""Gather single images into batches: decisions only, no clock, no threads.

Work-conserving: the model is never idle while an image is ready for it. One that finds the model
idle runs at once, in a batch of one; those that arrive meanwhile form the next batch. So the batch
size follows the load by itself, and no image waits for company, unless `max_wait_s` asks for it.

**The longest wait.** An image that is ready with `q` others before it starts after at most

    max_wait_s + (1 + floor(q / B)) t(B)        q < max_queue, B = max_batch, t(B) a run's time

seconds: one run that is under way, and the full batches before its own. `max_wait_s` counts only
where the model is idle and the batch not full. With two lanes, each of which takes half of what is
ready, it is at most another `t(B) + (1 + log2 B) t(0)`: a lane's next batches are `B` images, or
half of those left. Decoding comes before: with `d` seconds an image
and `w` threads at most `ceil(max_queue / w) d`. Where deadlines are short, or an objective makes
batches smaller, it may be more runs of a shorter time; then the deadline is the bound.

**Deadlines.** What a run takes is learned (`LatencyModel`). An image whose deadline would pass
before a run of one could end is dropped before it is run. If the batch as a whole would be too
late for some, there are two ways: a smaller batch of the first in line, or the full batch without
those. The first is fair, the second keeps an overloaded model useful: a queue in which every image
is about to expire would otherwise be worked off in batches of one. The full batch is taken where it
answers more than twice as many images a second (the early drop of Nexus, Shen et al., SOSP 2019,
4.3, drops always).

**Adaptive.** With `latency_s` the batch is kept so small that an image that just missed one run
and waits for its own sees its answer in time: the largest B with `2 t(B) <= latency_s`, `t` with a
margin for its spread. What smaller batches cannot help against, more images than the model can
answer, is refused: `Overloaded` where the expected time is above the objective.

**Estimates are doubted.** They refuse and drop only while the model runs or did within the last
second. So one that is wrong, and would refuse everything, is put to the test by the next image.

Rejected: waiting a few milliseconds for a fuller batch by default (Triton, mosec, Ray Serve): it
adds that wait to every lone request, and pays only when batches are much cheaper than their parts;
BentoML's `cork`, which waits as long as the past rate of arrivals promises company: it polls every
millisecond, and a batch that gathers while the model is busy is as full without; earliest deadline
first: a client with long deadlines would never be served beside one with short ones.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from itertools import islice, takewhile
from typing import Final, Generic, TypeVar

from fingerpost.errors import DeadlineExceeded, Overloaded
from fingerpost.registry.moving_average import ewma
from fingerpost.worker.engine.batching_options import BatchingOptions
from fingerpost.worker.engine.latency_model import LatencyModel

__all__ = ["Batch", "Batcher", "BatchingOptions", "Pending", "Stage"]

T = TypeVar("T")

# How long after the last run the estimates still refuse.
_TRUST_S: Final = 1.0
# How long before the last moment a batch that waits for company starts, for what starting takes.
_EARLY_S: Final = 0.002
# A lane takes so many images, if they are there: with one at a time ONNX Runtime ran 3 % fewer
# (MobileNetV2 on 2 cores, in turn).
_LEAST_SHARE: Final = 2
# Weight of the newest sample in the moving average of the time that preparing takes.
_SMOOTHING: Final = 0.1


class Stage(Enum):
    """Where an item is."""

    WAITING = "waiting to be prepared"
    PREPARING = "being prepared"
    READY = "ready for the model"
    RUNNING = "in the model"
    GONE = "answered, dropped or cancelled"


@dataclass(slots=True, eq=False)
class Pending(Generic[T]):
    """One submitted item, and the latest time at which its answer is of use."""

    item: T
    cost: float
    deadline: float
    since: float
    stage: Stage = Stage.WAITING


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch(Generic[T]):
    """What to do now.

    Attributes:
        items: to run, first come first; may be empty, and then nothing runs.
        size: as how many they run, padding counted.
        dropped: too late to be run: to be answered with `DeadlineExceeded`.
    """

    items: tuple[Pending[T], ...]
    size: int
    dropped: tuple[Pending[T], ...] = ()


class Batcher(Generic[T]):
    """A bounded queue before one model. Times are seconds of any one monotonic clock.

    An item is submitted, prepared where it needs that (`prepare`, `prepared`), and then runs in one
    batch (`poll`, `complete`), if it is not dropped or cancelled before.

    Args:
        options: see `BatchingOptions`.
        width: how many items are prepared at once, at most.
        lanes: how many batches run at once, at most. Each takes its share of what is ready, so that
            none waits for another that has taken all.
    """

    def __init__(self, options: BatchingOptions, *, width: int = 1, lanes: int = 1) -> None:
        self._options = options
        self._width = width
        self._lanes = lanes
        # Ordered, and an item in the middle is taken out at once when it is cancelled.
        self._unprepared: OrderedDict[Pending[T], None] = OrderedDict()
        self._preparing: set[Pending[T]] = set()
        self._ready: OrderedDict[Pending[T], None] = OrderedDict()
        self._running: dict[Batch[T], float] = {}  # since when, the oldest first
        self._latency = LatencyModel()
        self._prepare_s = self._full_queue_s = 0.0
        self._heard = -math.inf
        self.queued_cost = 0.0
        self.limit = 1
        self.limit = self._largest()

    def __len__(self) -> int:
        """How many items wait, those being prepared among them."""
        return len(self._unprepared) + len(self._preparing) + len(self._ready)

    @property
    def present(self) -> int:
        """How many items wait or run."""
        running = sum(len(batch.items) for batch in self._running) if self._running else 0
        return len(self) + running

    @property
    def running_since(self) -> float | None:
        """When the oldest of the batches that run began."""
        return next(iter(self._running.values()), None)

    @property
    def ready(self) -> int:
        """How many items wait for nothing but the model."""
        return len(self._ready)

    def judge(self, now: float, deadline: float = math.inf) -> None:
        """Refuse an item that has not been submitted yet, if it would be.

        Raises:
            Overloaded: `max_queue` items wait already, or they would take too long for the
                objective; `retry_after_s` is the time that they take, 1 s or more.
            DeadlineExceeded: the deadline passes before the items before it are done.
        """
        options = self._options
        full = len(self) >= options.max_queue
        if not full and options.latency_s is None and deadline - now > self._most_s(now):
            return  # without a closer look, which takes longer than all else here
        expected_s = self.expected_s(now)
        if full:
            raise Overloaded(
                f"{len(self)} images wait for the model already: "
                "try another worker, or this one later",
                retry_after_s=max(1.0, expected_s),
            )
        if options.latency_s is not None:
            # A model that misses the objective alone is still of use to one image at a time, and
            # one waiting.
            alone_s = self._prepare_s + self._latency.bound(options.size(1))
            allowed_s = max(options.latency_s, 2 * alone_s)
            # With room for runs that take longer and for a limit that falls meanwhile.
            careful_s = self.expected_s(now, ahead=self.limit // 4) + self._latency.spread
            if careful_s > allowed_s:
                raise Overloaded(
                    f"an answer would take {expected_s:.3g} s, over the objective of "
                    f"{options.latency_s:g} s: try another worker, or this one later",
                    retry_after_s=max(1.0, expected_s),
                )
        if now + expected_s > deadline:
            raise DeadlineExceeded(
                f"an answer would take {expected_s:.3g} s, but only {max(0.0, deadline - now):.3g} "
                "s are left: allow more time, or use another worker"
            )

    def expected_s(self, now: float, *, ahead: int = 0) -> float:
        """Seconds from now to the answer for one more item; 0 while too little is known.

        Args:
            ahead: items before it that are not here yet.
        """
        if not self._trusted(now):
            return 0.0
        predict, size = self._latency.predict, self._options.size
        batches, rest = divmod(len(self) + ahead, self.limit)
        rounds, lane = divmod(batches, self._lanes)
        own, model_s = rest + 1, 0.0
        if self._running:
            model_s = self._free_s(now)[lane]
            # Others will join it: as many as joined the last batch.
            own = max(own, min(len(next(reversed(self._running)).items), self.limit))
        model_s += rounds * predict(size(self.limit)) + predict(size(own))
        to_prepare = (len(self._unprepared) + len(self._preparing)) / self._width
        return max(model_s, self._prepare_s * (to_prepare + 1) + predict(size(1)))

    def _most_s(self, now: float) -> float:
        """No less than `expected_s` for any item that finds a place in the queue."""
        queue = self._options.max_queue
        running_s = 0.0 if self.running_since is None else now - self.running_since
        return running_s + self._full_queue_s + self._prepare_s * (queue / self._width + 1)

    def submit(
        self,
        item: T,
        *,
        cost: float,
        now: float,
        deadline: float = math.inf,
        prepared: bool = True,
    ) -> Pending[T]:
        """Accept an item, or refuse it at once; never waits. Raises as `judge` does.

        Args:
            prepared: it is ready for the model as it is.
        """
        self.judge(now, deadline)
        pending = Pending(item, cost, deadline, now)
        self.queued_cost += cost
        if prepared:
            pending.stage = Stage.READY
            self._ready[pending] = None
        else:
            self._unprepared[pending] = None
        return pending

    def prepare(self) -> Pending[T] | None:
        """The next item to prepare, if one waits and fewer than `width` are being prepared."""
        if not self._unprepared or len(self._preparing) >= self._width:
            return None
        pending, _ = self._unprepared.popitem(last=False)
        pending.stage = Stage.PREPARING
        self._preparing.add(pending)
        return pending

    def prepared(self, pending: Pending[T], *, now: float, took_s: float) -> None:
        """An item that `prepare` gave is done; if it was not cancelled, it is ready now."""
        self._prepare_s = ewma(self._prepare_s or took_s, took_s, _SMOOTHING)
        self._preparing.discard(pending)
        if pending.stage is Stage.PREPARING:
            pending.stage, pending.since = Stage.READY, now
            self._ready[pending] = None
        self._no_drift()

    def cancel(self, pending: Pending[T]) -> None:
        """Forget an item that does not run yet; without effect on any other."""
        if pending.stage is Stage.WAITING:
            del self._unprepared[pending]
        elif pending.stage is Stage.READY:
            del self._ready[pending]
        elif pending.stage is not Stage.PREPARING:
            return
        self._leave(pending, Stage.GONE)
        self._no_drift()

    def next_wake(self, now: float) -> float | None:
        """When `poll` has something to do, as things are: now, or later; None for never.

        Later only where images wait for company, as `max_wait_s` allows.
        """
        if len(self._running) == self._lanes or not self._ready:
            return None
        options = self._options
        if not options.max_wait_s or len(self._ready) >= self.limit:
            return now
        size = options.size(len(self._ready))
        last_start = min(pending.deadline for pending in self._ready) - self._run_s(size, now)
        oldest = next(iter(self._ready))
        return max(now, min(oldest.since + options.max_wait_s, last_start - _EARLY_S))

    def poll(self, now: float) -> Batch[T] | None:
        """Start the next batch, if a lane is free and it is time; None means nothing to do."""
        wake = self.next_wake(now)
        if wake is None or wake > now:
            return None
        items, dropped = self._choose(now)
        for pending in dropped:
            self._take(pending, Stage.GONE)
        for pending in items:
            self._take(pending, Stage.RUNNING)
        self._no_drift()
        batch = Batch(
            items=tuple(items), size=self._options.size(len(items)), dropped=tuple(dropped)
        )
        if items:
            self._running[batch] = now
        return batch

    def complete(self, now: float, batch: Batch[T] | None = None, *, learn: bool = True) -> None:
        """A batch that `poll` gave has run; the next may be taken.

        Args:
            batch: by default the oldest that runs.
            learn: its time is that of one usual run.
        """
        if batch is None:
            batch = next(iter(self._running), None)
        if batch is None or batch not in self._running:
            return
        since = self._running.pop(batch)
        if learn:
            self._latency.observe(batch.size, now - since)
            self.limit = self._largest()
            # The run that is under way, all rounds before its own, and its own.
            rounds = 2 + self._options.max_queue // (self.limit * self._lanes)
            self._full_queue_s = rounds * self._latency.predict(self._options.size(self.limit))
        for pending in batch.items:
            pending.stage = Stage.GONE
        self._heard = now

    def drain(self) -> list[Pending[T]]:
        """Cancel and give back all that waits, for an engine that stops."""
        waiting = [*self._ready, *self._preparing, *self._unprepared]
        for pending in waiting:
            self.cancel(pending)
        return waiting

    def _free_s(self, now: float) -> list[float]:
        """Seconds until each lane is free, the first one first.

        A run that is overdue by some time is expected to take that again.
        """
        runs = self._running.items()
        left_s = [abs(self._latency.predict(batch.size) - (now - since)) for batch, since in runs]
        return sorted([*left_s, *[0.0] * (self._lanes - len(left_s))])

    def _choose(self, now: float) -> tuple[list[Pending[T]], list[Pending[T]]]:
        """Whom to run, and whom to drop; see the module for the reasons."""
        soonest = now + self._run_s(self._options.size(1), now)
        most = self.limit
        if self._lanes > 1:
            most = min(most, max(_LEAST_SHARE, math.ceil(len(self._ready) / self._lanes)))
        live: list[Pending[T]] = []
        dropped: list[Pending[T]] = []
        for pending in self._ready:
            if pending.deadline < soonest:
                dropped.append(pending)
            else:
                live.append(pending)
                if len(live) == most:
                    break
        finish = now + self._run_s(self._options.size(len(live)), now)
        if all(pending.deadline >= finish for pending in live):
            return live, dropped
        first = self._in_time(live, now)
        fresh = list(islice((each for each in self._ready if each.deadline >= finish), len(live)))
        if self._rate(len(fresh), now) <= 2 * self._rate(first, now):
            return live[:first], dropped
        ahead = takewhile(lambda each: each is not fresh[-1], self._ready)
        return fresh, [each for each in ahead if each.deadline < finish]

    def _in_time(self, live: list[Pending[T]], now: float) -> int:
        """How many of the first can run as one batch that meets the deadlines of all of them."""
        tightest = math.inf
        for before, pending in enumerate(live):
            tightest = min(tightest, pending.deadline)
            if now + self._run_s(self._options.size(before + 1), now) > tightest:
                return before
        return len(live)

    def _rate(self, count: int, now: float) -> float:
        """Images a second in batches of `count`."""
        return count / self._run_s(self._options.size(count), now) if count else 0.0

    def _run_s(self, size: int, now: float) -> float:
        return self._latency.predict(size) if self._trusted(now) else 0.0

    def _trusted(self, now: float) -> bool:
        idle_s = 0.0 if self._running else now - self._heard
        return self._latency.known and idle_s <= _TRUST_S

    def _largest(self) -> int:
        """Most images in the next batch, as the objective allows."""
        options = self._options
        if options.latency_s is None:
            return options.max_batch
        sizes = options.sizes or range(1, options.max_batch + 1)
        if not self._latency.known:
            return sizes[0]
        # The bound grows with the size.
        fitting = bisect_right(sizes, options.latency_s / 2, key=self._latency.bound)
        largest = sizes[max(0, fitting - 1)]
        # A limit that falls delays who was let in under the higher one: not for noise.
        if largest < self.limit and 2 * self._latency.bound(self.limit) <= 1.1 * options.latency_s:
            return self.limit
        return largest

    def _take(self, pending: Pending[T], stage: Stage) -> None:
        del self._ready[pending]
        self._leave(pending, stage)

    def _leave(self, pending: Pending[T], stage: Stage) -> None:
        pending.stage = stage
        self.queued_cost -= pending.cost

    def _no_drift(self) -> None:
        """Undo what adding and subtracting floats leaves over."""
        self.queued_cost = max(0.0, self.queued_cost) if len(self) else 0.0
