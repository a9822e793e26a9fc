"""One model at work: decoding in threads, inference in one thread, batches in between."""

from __future__ import annotations

import asyncio
import io
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from fingerpost.client.wire import TimingsMs
from fingerpost.registry import ConfigurationError, FingerpostError, ModelFailed
from fingerpost.worker.batching import Batcher, Pending
from fingerpost.worker.images import ImageLimits, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Backend
    from fingerpost.worker.metrics import WorkerMetrics

    Scores = NDArray[np.float32]

__all__ = ["Engine", "Outcome", "best", "warm_up"]

logger = logging.getLogger(__name__)

# Weight of the newest sample in the moving average of seconds per megabyte.
_SMOOTHING = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image's scores, float32 `[classes]`, and where its time went."""

    scores: Scores
    timings: TimingsMs


@dataclass(slots=True, eq=False)
class _Job:
    pixels: NDArray[np.uint8] | bytes
    future: asyncio.Future[tuple[Scores, float, float]]


class Engine:
    """Runs a backend without ever blocking the event loop. `start` and `aclose` frame its use.

    Two pools: `decode_threads` decode images (Pillow releases the interpreter lock), and a single
    thread runs the model, so that a backend need not be thread-safe.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        limits: ImageLimits,
        max_batch: int,
        max_queue: int,
        decode_threads: int,
        metrics: WorkerMetrics,
    ) -> None:
        self._backend = backend
        self._input = backend.input
        self._limits = limits
        self._max_batch = max_batch
        self._metrics = metrics
        self._batcher: Batcher[_Job] = Batcher(max_batch=max_batch, max_queue=max_queue)
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._runner = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._batch: asyncio.Task[None] | None = None
        self.latency_per_cost_s = 0.0

    @property
    def queued_cost(self) -> float:
        """Megabytes of encoded images waiting for the model."""
        return self._batcher.queued_cost

    @property
    def queued(self) -> int:
        """Images waiting for the model."""
        return len(self._batcher)

    def running_s(self) -> float:
        """Seconds that the present batch has been running, 0 when the model is idle."""
        since = self._batcher.running_since
        return 0.0 if since is None else time.monotonic() - since

    def warm_up(self) -> int:
        """Run real inferences, blocking; return the number of classes. See `warm_up`."""
        return warm_up(self._backend, self._max_batch)

    async def classify(self, data: bytes) -> Outcome:
        """Decode, wait for a batch, run; at most one queue's worth of batches (see `batching`).

        Raises:
            ImageError: the image cannot be decoded.
            Overloaded: the queue is full.
            ModelFailed: the model raised on this image, or gave it scores that are no numbers.
        """
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        pixels = await loop.run_in_executor(
            self._decoders, prepare, data, self._input, self._limits
        )
        decoded = time.monotonic()
        job = _Job(pixels, loop.create_future())
        cost = len(data) / 1e6
        pending = self._batcher.submit(job, cost=cost, now=decoded)
        self._kick()
        try:
            scores, began, ended = await job.future
        finally:
            pending.cancelled = True  # no effect once it has run
        self._metrics.decode_seconds.observe(decoded - started)
        self._metrics.queue_seconds.observe(began - decoded)
        sample = (ended - started) / max(cost, 1e-6)
        self.latency_per_cost_s += _SMOOTHING * (sample - self.latency_per_cost_s)
        return Outcome(
            scores,
            TimingsMs(
                decode=_ms(decoded - started),
                queue=_ms(began - decoded),
                inference=_ms(ended - began),
            ),
        )

    async def aclose(self) -> None:
        """Let the running batch end, and the threads; what still waits is cancelled."""
        for pending in self._batcher.drain():
            pending.item.future.cancel()
        if self._batch is not None:
            await asyncio.gather(self._batch, return_exceptions=True)
        self._decoders.shutdown(wait=True, cancel_futures=True)
        self._runner.shutdown(wait=True, cancel_futures=True)

    def _kick(self) -> None:
        batch = self._batcher.take(time.monotonic())
        if batch:
            self._batch = asyncio.create_task(self._run(batch))

    async def _run(self, batch: list[Pending[_Job]]) -> None:
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        try:
            outcomes = await loop.run_in_executor(
                self._runner, self._predict, [pending.item.pixels for pending in batch]
            )
        finally:
            self._batcher.complete()
        ended = time.monotonic()
        self._metrics.batch_size.observe(len(batch))
        self._metrics.inference_seconds.observe(ended - began)
        self._kick()  # first the next batch, then the answers
        for pending, outcome in zip(batch, outcomes, strict=True):
            future = pending.item.future
            if future.done():
                continue
            if isinstance(outcome, FingerpostError):
                future.set_exception(outcome)
            else:
                future.set_result((outcome, began, ended))

    def _predict(self, images: Sequence[NDArray[np.uint8] | bytes]) -> list[Scores | ModelFailed]:
        """One outcome an image: if the batch raises, each runs alone, so that one fails alone."""
        try:
            scores = self._backend.predict(images)
        except Exception as error:
            if len(images) == 1:
                logger.warning("the model failed on an image: %s", error)
                return [ModelFailed(f"the model failed on this image: {str(error)[:300]}")]
            return [outcome for image in images for outcome in self._predict([image])]
        return [
            row
            if np.isfinite(row).all()
            else ModelFailed("the model gave scores that are no numbers")
            for row in scores
        ]


def warm_up(backend: Backend, max_batch: int) -> int:
    """Run real inferences on gray images, blocking; return the number of classes.

    The smallest and the largest batch both run, because frameworks plan memory and choose kernels
    at a shape's first use (a graph that decodes by itself runs images one by one, so two are
    enough).

    Raises:
        ConfigurationError: the model raises, or gives something other than one row of finite
            scores an image.
    """
    wanted = backend.input
    blank: NDArray[np.uint8] | bytes
    if wanted.encoded:
        blank, max_batch = _gray_jpeg(), min(2, max_batch)
    else:
        blank = np.full((wanted.height, wanted.width, wanted.channels), 128, np.uint8)
    classes = 0
    for size in sorted({1, max_batch}):
        try:
            scores = backend.predict([blank] * size)
        except Exception as error:
            raise ConfigurationError(
                f"the model fails on a gray image (batch of {size}): {error}"
            ) from error
        if scores.ndim != 2 or scores.shape[0] != size or not np.isfinite(scores).all():
            raise ConfigurationError(
                f"the model gives {scores.dtype} {list(scores.shape)} for {size} images: "
                f"expected finite scores [{size}, classes]"
            )
        classes = int(scores.shape[1])
    return classes


def best(scores: Scores, labels: tuple[str, ...], top: int) -> tuple[tuple[str, float], ...]:
    """The `top` labels with their scores, best first; all of them where `top` is 0."""
    order = np.argsort(scores)[::-1][: top or None]
    return tuple((labels[i], round(float(scores[i]), 6)) for i in order)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _gray_jpeg() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (224, 224), (128, 128, 128)).save(out, "JPEG")
    return out.getvalue()
