"""Decoding beside the event loop: what comes before the model."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fingerpost.errors import FingerpostError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from fingerpost.worker.backends.base import Item
    from fingerpost.worker.engine.batching.batch import Pending
    from fingerpost.worker.engine.batching.batcher import Batcher
    from fingerpost.worker.engine.batching.job import Job

__all__ = ["Decoding"]


class Decoding:
    """Decodes the images of one engine in a pool's threads, a bounded number at once.

    Args:
        batcher: says which image is next; shared with other threads under `lock`.
        pool: may be shared with other engines.
        ready: called after each image, in the thread that decoded it.
    """

    def __init__(
        self,
        batcher: Batcher[Job],
        lock: threading.Lock,
        pool: ThreadPoolExecutor,
        *,
        ready: Callable[[Job], None],
    ) -> None:
        self._batcher = batcher
        self._lock = lock
        self._pool = pool
        self._ready = ready
        self._began: dict[Pending[Job], float] = {}

    def began(self) -> list[float]:
        """When each image that is being decoded now was begun, on the monotonic clock."""
        return list(self._began.values())

    def start_next(self) -> None:
        """Hand the next image to the pool, if one waits and fewer than the bound are there.

        From any thread, without the lock.
        """
        with self._lock:
            pending = self._batcher.prepare()
            if pending is not None:
                # Within the lock, so that an engine that closes does not shut the pool down before.
                self._pool.submit(self._decode, pending, time.monotonic())

    def _decode(self, pending: Pending[Job], handed_over: float) -> None:
        job = pending.item
        began = self._began[pending] = time.monotonic()
        made = job.item if job.make is None or job.future.done() else _made(job.make)
        error = made if isinstance(made, Exception) else None
        if not isinstance(made, Exception):
            job.item = made
        job.make = None  # the encoded image is not needed any more
        now = time.monotonic()
        job.decode_s = now - began
        del self._began[pending]
        with self._lock:
            if error is not None:
                self._batcher.cancel(pending)
            self._batcher.prepared(pending, now=now, took_s=now - handed_over)
        if error is not None:
            job.fail(error)
        self._ready(job)
        self.start_next()


def _made(make: Callable[[], Item]) -> Item | Exception:
    """The item, or what was raised; a `FingerpostError` without its traceback and cause.

    Their frames and the frames that called these hold the error, so the error would hold itself and
    the image until Python looks for cycles: thousands of requests later, for Python does not count
    the memory of pixels.
    """
    try:
        return make()
    except FingerpostError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    except Exception as error:
        return error
