"""Runs a batch on a processor's threads: in parts with a thread each, or whole on all of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.worker.backends.pixels import predict_in_batches
from fingerpost.worker.threads import lower_priority

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import ImageInput, Item
    from fingerpost.worker.backends.pixels import ToScores

__all__ = ["CONCURRENT_BATCHES", "PartedRunner"]

Run = Callable[["NDArray[Any]"], "NDArray[Any]"]
"""Maps a batch to the model's output for it."""

_PART_BYTES: Final = 1_250_000
_PART_LEAST: Final = 2
"""What a thread runs at a time: this many bytes of input (two images of 224 x 224), or two images.
The values between two operators then stay in the cache: on one thread MobileNetV2 takes 7.1 ms an
image so in ONNX Runtime, 7.2 with four images, 7.5 with eight, and 7.5 with one."""

CONCURRENT_BATCHES: Final = 2
"""Batches at once on a CPU. Not all threads end a batch at the same time, and with one batch those
that are early wait: 2 processors were idle for 4 % beside decoders and a server, with two 1 %."""


class PartedRunner:
    """Runs batches.

    A batch with at least one image for each thread is run in parts, so that no thread waits for the
    others at each operator: beside decoders, 2 cores run 1.13 times as many images (ONNX Runtime).

    Args:
        whole: runs a batch on all threads.
        single: runs one on the thread that calls it, and may be called from several at once; None
            where batches are not divided.
        threads: the threads, which are divided among the batches that run.
        name: of the threads.
        most: most images in a call of either; None for any number.
    """

    def __init__(
        self,
        whole: Run,
        single: Run | None,
        *,
        threads: int,
        name: str,
        most: int | None = None,
    ) -> None:
        self._whole, self._single = whole, single
        self._threads, self._most = threads, most
        self._pool = ThreadPoolExecutor(threads, name, lower_priority)  # start at first use
        self._calls, self._lock = 0, threading.Lock()

    def predict(
        self,
        images: Sequence[Item],
        wanted: ImageInput,
        to_scores: ToScores,
        prepare: Run | None = None,
    ) -> NDArray[np.float32]:
        """Scores, see `Backend.predict`.

        Args:
            images: 1 or more.
            wanted: the form in which `stack` makes batches of them.
            to_scores: makes scores of the output.
            prepare: makes of such a batch, or of a part of one, what the model takes.
        """
        with self._lock:
            self._calls += 1
            threads = max(1, self._threads // self._calls)
        try:
            run = partial(self._run, threads, to_scores, prepare)
            return predict_in_batches(images, wanted, run)
        finally:
            with self._lock:
                self._calls -= 1

    def close(self) -> None:
        """Stop the threads, and let go of the model."""
        self._pool.shutdown()
        del self._whole, self._single

    def _run(
        self, threads: int, to_scores: ToScores, prepare: Run | None, batch: NDArray[Any]
    ) -> NDArray[np.float32]:
        count = len(batch)
        single = self._single if count >= threads else None
        if single is None:
            threads, run = 1, self._whole
            parts = 1 if self._most is None else math.ceil(count / self._most)
        else:
            run = single
            part = self._most or max(_PART_LEAST, _PART_BYTES // batch[0].nbytes)
            parts = min(count, threads * math.ceil(count / (threads * part)))
        if prepare is not None:
            run = partial(_after, prepare, run)
        if parts == 1:
            return to_scores(run(batch), count)
        split = np.array_split(batch, parts)
        outputs = list((map if threads == 1 else self._pool.map)(run, split))
        return to_scores(np.concatenate(outputs), count)


def _after(prepare: Run, run: Run, batch: NDArray[Any]) -> NDArray[Any]:
    return run(prepare(batch))
