"""The threads that run a model, mostly one, and take their batches by themselves."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from fingerpost.worker.engine.inference import run
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    import asyncio

    from fingerpost.errors import FingerpostError
    from fingerpost.worker.backends.base import Backend, Item
    from fingerpost.worker.engine.batching import Batch, Batcher, Pending
    from fingerpost.worker.engine.batching_options import BatchingOptions
    from fingerpost.worker.engine.outcome import Outcome, Scores

__all__ = ["Job", "ModelThreads", "Ran"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Job:
    """One image on its way: `item` is for the model, once `make` (None: nothing to do) made it.

    `queue` is how many full batches there were when it came, itself among them; 1 at least.
    """

    future: asyncio.Future[Outcome]
    arrived: float
    cost: float
    queue: float
    make: Callable[[], Item] | None = None
    item: Item = b""
    decode_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A batch that has run, with an outcome for each job; times on the monotonic clock."""

    jobs: list[Job]
    outcomes: list[Scores | FingerpostError]
    began: float
    ended: float


class ModelThreads:
    """Start at first use; after `close` the running batches end, and then the backend is closed.

    There are as many as the backend's input has lanes.

    Args:
        batcher: shared with other threads under `lock`.
        ran, late: told in one of these threads of what has run and of what was dropped before.
    """

    def __init__(
        self,
        backend: Backend,
        options: BatchingOptions,
        batcher: Batcher[Job],
        lock: threading.Lock,
        *,
        ran: Callable[[Ran], None],
        late: Callable[[Pending[Job]], None],
    ) -> None:
        self._backend = backend
        self._options = options
        self._batcher = batcher
        self._lock = lock
        self._news = threading.Condition(lock)
        self._ran = ran
        self._late = late
        self._threads: list[threading.Thread] = []
        self._at_work = 0
        self._closing = False
        self._calls: deque[Callable[[], None]] = deque()

    def wake(self) -> None:
        """Something may be ready; from any thread, without the lock."""
        with self._news:
            self._start()
            self._news.notify()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads, between batches, and wait for its result."""
        result: Future[T] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        with self._news:
            self._start()
            self._calls.append(call)
            self._news.notify()
        return result.result()

    def close(self) -> None:
        """Let the running batches end, close the backend, and end; blocks meanwhile."""
        with self._news:
            self._closing = True
            self._start()  # the backend is closed there, even if it never ran
            self._news.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        if self._threads:
            return
        self._at_work = self._backend.input.lanes
        for _ in range(self._at_work):
            # A daemon, so that a model that hangs does not keep the process from ending.
            thread = threading.Thread(target=self._work, name="model", daemon=True)
            self._threads.append(thread)
            thread.start()

    def run_here(self) -> list[Ran]:
        """Run all that is ready in the calling thread, which must not be held up: see `instant`.

        Not beside `wake`: a model runs in its own threads alone.
        """
        ran: list[Ran] = []
        while True:
            with self._lock:
                batch = None if self._closing else self._batcher.poll(time.monotonic())
            if batch is None:
                return ran
            for pending in batch.dropped:
                self._late(pending)
            if batch.items:
                ran.append(self._run(batch))

    def _run(self, batch: Batch[Job]) -> Ran:
        began = time.monotonic()
        jobs = [pending.item for pending in batch.items]
        outcomes, clean = run(self._backend, [job.item for job in jobs], self._options)
        ended = time.monotonic()
        with self._lock:
            self._batcher.complete(ended, batch, learn=clean)
        return Ran(jobs=jobs, outcomes=outcomes, began=began, ended=ended)

    def _work(self) -> None:
        lower_priority()
        while (batch := self._next()) is not None:
            self._ran(self._run(batch))
            del batch  # nothing is held while it sleeps
        with self._lock:
            self._at_work -= 1
            if self._at_work:
                return
        try:
            self._backend.close()
        except Exception:
            logger.exception("the model could not be closed")

    def _next(self) -> Batch[Job] | None:
        """Wait for a batch with something to run; None to end."""
        while True:
            call = batch = None
            with self._news:
                now = time.monotonic()
                if self._calls:
                    call = self._calls.popleft()
                else:
                    batch = self._batcher.poll(now)
                wake = self._batcher.next_wake(now)
                if batch is not None and wake is not None:
                    self._news.notify()  # for what this thread leaves to others
                elif call is None and batch is None:
                    if self._closing:
                        return None
                    self._news.wait(None if wake is None else wake - now)
            if call is not None:
                call()
            if batch is not None:
                for pending in batch.dropped:
                    self._late(pending)
                if batch.items:
                    return batch
