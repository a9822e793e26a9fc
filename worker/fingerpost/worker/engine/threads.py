"""The threads that run a model, usually one, and take their batches by themselves."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fingerpost.worker.backends.base import ItemRunner
from fingerpost.worker.engine.inference import run
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    from fingerpost.errors import FingerpostError
    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.engine.batching.batch import Batch
    from fingerpost.worker.engine.batching.batcher import Batcher
    from fingerpost.worker.engine.batching.config import BatchingConfig
    from fingerpost.worker.engine.batching.job import Job
    from fingerpost.worker.engine.outcome import Scores

__all__ = ["BatchResult", "ModelThreads"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
# Of runs that are shorter than this, no more than one in so many seconds is learned from, which
# takes 10 us.
_LEARN_EVERY_S: Final = 5e-4
_Run = Callable[[list[Any], "BatchingConfig"], tuple[list[Any], bool]]


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """A batch that has run, with an outcome for each job; times on the monotonic clock."""

    jobs: list[Job]
    outcomes: list[Scores | FingerpostError]
    began: float
    ended: float


class ModelThreads:
    """One thread for each of the backend's concurrent batches; they start at first use.

    After `close` the batches that run end, and then the backend is closed.

    Args:
        batcher: shared with other threads under `lock`.
        on_result: called with each batch that has run, in one of these threads.
        on_dropped: called with each job that was dropped before it ran, likewise.
    """

    def __init__(
        self,
        backend: Backend,
        config: BatchingConfig,
        batcher: Batcher[Job],
        lock: threading.Lock,
        *,
        on_result: Callable[[BatchResult], None],
        on_dropped: Callable[[Job], None],
    ) -> None:
        self._backend = backend
        if isinstance(backend, ItemRunner):
            run_items = backend.run_items
            self._run_items: _Run = lambda items, config: run_items(items, config.padded_size)
        else:
            self._run_items = partial(run, backend)
        self._config = config
        self._batcher = batcher
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._on_result = on_result
        self._on_dropped = on_dropped
        self._threads: list[threading.Thread] = []
        self._working = 0
        self._closing = False
        self._learned_at = -math.inf
        self._calls: deque[Callable[[], None]] = deque()

    def wake(self) -> None:
        """Look for a batch: an item may be ready; from any thread, without the lock."""
        with self._changed:
            self._start()
            self._changed.notify()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function in one of the threads, between batches, and wait for its result."""
        result: Future[T] = Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        with self._changed:
            self._start()
            self._calls.append(call)
            self._changed.notify()
        return result.result()

    def close(self) -> None:
        """Wait for the batches that run, close the backend, and end the threads; blocks."""
        with self._changed:
            self._closing = True
            self._start()  # the backend is closed there, even if it never ran
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        if self._threads:
            return
        self._working = self._backend.input.concurrent_batches
        for _ in range(self._working):
            # A daemon, so that a model that hangs does not keep the process from ending.
            thread = threading.Thread(target=self._work, name="model", daemon=True)
            self._threads.append(thread)
            thread.start()

    def run_inline(self) -> list[BatchResult]:
        """Run all ready items in the calling thread, without waiting: see `ImageInput.inline`.

        Not to be used together with `wake`: a model runs either inline or in its own threads.
        """
        results: list[BatchResult] = []
        while True:
            with self._lock:
                batch = None if self._closing else self._batcher.poll(time.monotonic())
            if batch is None:
                return results
            for pending in batch.dropped:
                self._on_dropped(pending.item)
            if batch.items:
                results.append(self._run(batch))

    def _run(self, batch: Batch[Job]) -> BatchResult:
        began = time.monotonic()
        jobs = [pending.item for pending in batch.items]
        outcomes, clean = self._run_items([job.item for job in jobs], self._config)
        ended = time.monotonic()
        learn = clean and ended - min(began, self._learned_at) >= _LEARN_EVERY_S
        if learn:
            self._learned_at = ended
        with self._lock:
            self._batcher.complete(ended, batch, learn=learn)
        return BatchResult(jobs=jobs, outcomes=outcomes, began=began, ended=ended)

    def _work(self) -> None:
        lower_priority()
        while (batch := self._next()) is not None:
            self._on_result(self._run(batch))
            del batch  # nothing is held while it sleeps
        with self._lock:
            self._working -= 1
            if self._working:
                return
        try:
            self._backend.close()
        except Exception:
            logger.exception("the model could not be closed")

    def _next(self) -> Batch[Job] | None:
        """Wait for a batch with items to run; None at the end."""
        while True:
            call = batch = None
            with self._changed:
                now = time.monotonic()
                if self._calls:
                    call = self._calls.popleft()
                else:
                    batch = self._batcher.poll(now)
                wake = self._batcher.next_wake(now)
                if batch is not None and wake is not None:
                    self._changed.notify()  # for the items that this thread leaves to others
                elif call is None and batch is None:
                    if self._closing:
                        return None
                    self._changed.wait(None if wake is None else wake - now)
            if call is not None:
                call()
            if batch is not None:
                for pending in batch.dropped:
                    self._on_dropped(pending.item)
                if batch.items:
                    return batch
