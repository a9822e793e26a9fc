"""One model at work: decoding in threads, inference in one thread, batches in between."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fingerpost.client.wire import TimingsMs
from fingerpost.errors import (
    DeadlineExceeded,
    Draining,
    EmptyImage,
    FingerpostError,
    InvalidRequest,
)
from fingerpost.registry.moving_average import ewma, time_weight
from fingerpost.worker.engine.batching import Batcher, BatchingOptions, Pending
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.engine.outcome import Outcome, best
from fingerpost.worker.engine.threads import Job, ModelThreads, Ran
from fingerpost.worker.images import ImageLimits, fit, prepare
from fingerpost.worker.telemetry.request import current_request
from fingerpost.worker.threads import decode_pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Backend, Item
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["Engine", "Outcome", "best", "warm_up"]

logger = logging.getLogger(__name__)

# An image that has so many seconds is let in without a look at the estimates while no more than one
# batch waits: they could refuse it only for runs of 20 s, and do so when it is here.
LONG_S: Final = 60.0
# Weight of the newest sample in the moving averages of seconds and megabytes: the seconds since the
# one before it, within bounds, so that few images are enough to show that the model is slow now,
# and a busy worker's figure is no noise, after which all clients would run.
_SMOOTHING: Final = 0.05
_NEWEST: Final = 0.6
_LEAST_COST: Final = 1e-6


class Engine:
    """Runs a backend without ever blocking the event loop; `aclose` ends its use.

    Three parties share one `Batcher` under one lock, which each holds for microseconds: the event
    loop submits and cancels; `decode_threads` at most decode images (Pillow releases the
    interpreter lock); a single thread runs the model, so that a backend need not be thread-safe, or
    one for each lane that it offers. It takes its next batch by itself, so the model does not wait
    for a loop that is busy with bodies; the loop hears once a batch. An image that needs no
    decoding costs one handover.

    Args:
        backend: the model; closed by `aclose`.
        limits: what is refused before decoding.
        batching: how images are gathered. A backend with a fixed batch overrides its sizes.
        decoders: a pool shared with other engines; by default one of its own.
        decode_threads: most images decoded at once for this engine.
        model: its name in the metrics.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        limits: ImageLimits,
        metrics: WorkerMetrics,
        batching: BatchingOptions | None = None,
        decoders: ThreadPoolExecutor | None = None,
        decode_threads: int = 1,
        model: str = "",
    ) -> None:
        self._backend = backend
        self._input = backend.input
        self._limits = limits
        self._metrics = metrics.of(model)
        options = batching or BatchingOptions()
        if self._input.batch is not None:
            options = replace(options, max_batch=self._input.batch, sizes=(self._input.batch,))
        if self._input.instant:
            options = replace(options, max_wait_s=0.0)  # nobody would wake the loop
        self._options = options
        few = min(options.max_batch, options.max_queue - 1)
        self._short_queue = few if options.latency_s is None else 0
        self._at_once = options.max_batch * self._input.lanes
        self._batcher: Batcher[Job] = Batcher(
            options, width=decode_threads, lanes=self._input.lanes
        )
        self._lock = threading.Lock()
        self._own_decoders = decoders is None
        self._decoders = decoders or decode_pool(decode_threads)
        self._model = ModelThreads(
            backend, options, self._batcher, self._lock, ran=self._ran, late=self._late
        )
        self._waking = False
        self._closed = False
        self._latency_s = self._cost = self._sampled = 0.0

    @property
    def latency_per_cost_s(self) -> float:
        """Seconds a megabyte of image takes where no batch is in front of it; 0 before the first.

        Each image's time is divided by the batches it met, so that the figure is the model's and
        not the load's. A ratio of two moving averages: in a mean of ratios, the fixed cost of
        thumbnails would count as much as photographs.
        """
        return self._latency_s / self._cost if self._cost else 0.0

    @property
    def platform(self) -> str:
        """See `Backend.platform`."""
        return self._backend.platform

    @property
    def queued_cost(self) -> float:
        """Megabytes of images waiting for a decoder or the model."""
        return self._batcher.queued_cost

    @property
    def queued(self) -> int:
        """Images waiting for a decoder, being decoded, or waiting for the model."""
        return len(self._batcher)

    @property
    def ready(self) -> int:
        """Images waiting for the model alone."""
        return self._batcher.ready

    def running_s(self) -> float:
        """Seconds that the oldest of the present batches has been running, 0 when none is."""
        since = self._batcher.running_since
        return 0.0 if since is None else time.monotonic() - since

    def judge(self, left_s: float) -> None:
        """Refuse an image that is only announced, if it would be refused or late when here.

        With too little known of the model's times it lets everything in.

        Raises:
            Overloaded, DeadlineExceeded: see `Batcher.judge`.
        """
        if left_s >= LONG_S and len(self._batcher) <= self._short_queue:
            return
        now = time.monotonic()
        with self._lock:
            self._batcher.judge(now, now + left_s)

    def warm_up(self) -> int:
        """Run real inferences, blocking; return the number of classes. See `warm_up`."""
        options = self._options
        return self._model.call(partial(warm_up, self._backend, options.max_batch, options.sizes))

    async def classify(
        self, data: bytes | bytearray | memoryview, *, deadline: float | None = None
    ) -> Outcome:
        """Decode, wait for a batch, run; `batching` says how long that is at most.

        Args:
            data: an encoded image, not to be changed meanwhile.
            deadline: the latest time, by the loop's clock, at which the answer is of use.

        Raises:
            ImageError: the image cannot be decoded.
            Overloaded: the queue is full.
            DeadlineExceeded: the deadline cannot be met; told before the model ran.
            ModelFailed: the model raised on this image, or gave it scores that are no numbers.
            Draining: the engine is closed.
        """
        if self._input.encoded and not self._input.check_encoded:
            if not data:
                raise EmptyImage("the body is empty: send the image's bytes")
            item = bytes(data)  # which does not copy bytes
            return await self._run(len(data) / 1e6, deadline, item=item)
        make = partial(prepare, data, self._input, self._limits)
        return await self._run(len(data) / 1e6, deadline, make=make)

    async def infer(self, image: NDArray[Any], *, deadline: float | None = None) -> Outcome:
        """Run an image that is an array already, as `classify` does.

        Args:
            image: uint8 `[height, width, channels]` in 0..255, RGB, of any size, which is brought
                to the model's; or float32 `input.tensor_shape`, which goes in as it is.
            deadline: as for `classify`.

        Raises:
            InvalidRequest: an array of another shape or type, or float values for which the model
                gives no numbers; and as for `classify`.
        """
        wanted = self._input
        if wanted.encoded:
            raise InvalidRequest("this model decodes images itself: send encoded images")
        make: Callable[[], Item] | None = None
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == wanted.channels:
            if image.shape[:2] != (wanted.height, wanted.width):
                self._check_sides(image)
                make = partial(fit, image, wanted)
        elif image.dtype != np.float32 or image.shape != wanted.tensor_shape:
            raise InvalidRequest(
                f"the image is {image.dtype} {list(image.shape)}: this model takes float32 "
                f"{list(wanted.tensor_shape)} as it is, or uint8 [rows, columns, {wanted.channels}]"
            )
        return await self._run(image.nbytes / 1e6, deadline, make=make, item=image)

    async def aclose(self) -> None:
        """Cancel what waits, let the running batch end, and close the backend and the threads."""
        with self._lock:
            self._closed = True
            waiting = self._batcher.drain()
        for pending in waiting:
            pending.item.future.cancel()
        if self._own_decoders:
            self._decoders.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._close)

    async def _run(
        self,
        cost: float,
        deadline: float | None,
        *,
        make: Callable[[], Item] | None = None,
        item: Item = b"",
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        now = time.monotonic()  # what asyncio's loops go by, too
        with self._lock:
            if self._closed:
                raise Draining("this model is being unloaded: try again")
            queue = max(1.0, (self._batcher.present + 1) / self._at_once)
            job = Job(loop.create_future(), now, cost, queue, make, item)
            pending = self._batcher.submit(
                job,
                cost=cost,
                now=now,
                deadline=math.inf if deadline is None else deadline,
                prepared=make is None,
            )
        if make is not None:
            self._decode_next()
        elif not self._waking:
            # At the end of this turn of the loop, so that all that came with it is one batch.
            self._waking = True
            loop.call_soon(self._wake)
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            with self._lock:
                self._batcher.cancel(pending)
            raise
        finally:
            del job, pending  # whose future holds the error, whose traceback holds these names
        record = current_request()
        if record is not None:
            record.image(now, outcome.timings)
        return outcome

    def _wake(self) -> None:
        self._waking = False
        if not self._input.instant:
            self._model.wake()
            return
        for ran in self._model.run_here():
            self._finish(ran)

    def _close(self) -> None:
        self._model.close()
        if self._own_decoders:
            self._decoders.shutdown(wait=True)

    def _check_sides(self, image: NDArray[Any]) -> None:
        height, width = image.shape[:2]
        if not 1 <= min(height, width) <= max(height, width) <= self._limits.max_side:
            raise InvalidRequest(
                f"the image is {width} x {height}: a side must be 1 to {self._limits.max_side} "
                "pixels"
            )

    # In the decoding threads.

    def _decode_next(self) -> None:
        """Hand one image to the decoders, if they have room for it; called from any thread."""
        with self._lock:
            pending = None if self._closed else self._batcher.prepare()
            if pending is not None:
                # Within the lock, so that `aclose` does not shut the pool down in between.
                self._decoders.submit(self._decode, pending, time.monotonic())

    def _decode(self, pending: Pending[Job], handed_over: float) -> None:
        job = pending.item
        began = time.monotonic()
        made = job.item if job.make is None or job.future.done() else _made(job.make)
        error = made if isinstance(made, Exception) else None
        if not isinstance(made, Exception):
            job.item = made
        job.make = None  # the encoded image is not needed any more
        now = time.monotonic()
        job.decode_s = now - began
        with self._lock:
            if error is not None:
                self._batcher.cancel(pending)
            self._batcher.prepared(pending, now=now, took_s=now - handed_over)
        if error is not None:
            self._tell(job.future, _fail, job.future, error)
        if self._input.instant:
            self._tell(job.future, self._wake)
        else:
            self._model.wake()
        self._decode_next()

    # From any thread to the loop.

    def _tell(
        self, future: asyncio.Future[Outcome], function: Callable[..., None], *args: object
    ) -> None:
        try:
            future.get_loop().call_soon_threadsafe(function, *args)
        except RuntimeError:
            logger.debug("the event loop has ended before its images")

    def _ran(self, ran: Ran) -> None:
        self._tell(ran.jobs[0].future, self._finish, ran)

    def _late(self, pending: Pending[Job]) -> None:
        future = pending.item.future
        error = DeadlineExceeded("the deadline cannot be met: the image was not run")
        self._tell(future, _fail, future, error)

    def _finish(self, ran: Ran) -> None:
        """Give out a batch's results; on the loop."""
        metrics = self._metrics
        inference_s = ran.ended - ran.began
        inference_ms = _ms(inference_s)
        for job, outcome in zip(ran.jobs, ran.outcomes, strict=True):
            queue_s = max(0.0, ran.began - job.arrived - job.decode_s)
            if job.decode_s:
                metrics.decode_seconds.observe(job.decode_s)
            metrics.queue_seconds.observe(queue_s)
            pause_s = ran.ended - self._sampled
            weight = time_weight(pause_s, _SMOOTHING, _NEWEST) if self._cost else 1.0
            self._sampled = ran.ended
            latency_s = (ran.ended - job.arrived) / job.queue
            self._latency_s = ewma(self._latency_s, latency_s, weight)
            self._cost = ewma(self._cost, max(job.cost, _LEAST_COST), weight)
            if job.future.done():
                continue
            if isinstance(outcome, FingerpostError):
                job.future.set_exception(outcome)
                continue
            timings = TimingsMs(
                decode=_ms(job.decode_s) if job.decode_s else 0.0,
                queue=_ms(queue_s),
                inference=inference_ms,
            )
            job.future.set_result(Outcome(outcome, timings))
        metrics.batch_size_images.observe(len(ran.jobs))
        metrics.inference_seconds.observe(inference_s)


def _made(make: Callable[[], Item]) -> Item | Exception:
    """The item, or what was raised; an error of ours without its traceback and cause.

    Their frames and the frames that called these hold the error, and so it held itself and the
    image until Python looked for cycles: thousands of requests later, for it knows nothing of the
    pixels.
    """
    try:
        return make()
    except FingerpostError as error:
        error.__cause__ = error.__context__ = None
        return error.with_traceback(None)
    except Exception as error:
        return error


def _fail(future: asyncio.Future[Outcome], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
