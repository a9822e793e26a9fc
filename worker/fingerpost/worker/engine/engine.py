"""One model at work: images are decoded in threads, gathered into batches, and run."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fingerpost.client.wire import TimingsMs
from fingerpost.errors import (
    DeadlineExceeded,
    Draining,
    EmptyImage,
    FingerpostError,
    Overloaded,
)
from fingerpost.worker.engine.arrays import preparation
from fingerpost.worker.engine.batching.buckets import new_batcher
from fingerpost.worker.engine.batching.config import BatchingConfig
from fingerpost.worker.engine.batching.job import Job
from fingerpost.worker.engine.decoding import Decoding
from fingerpost.worker.engine.fairness.flow import DEFAULT_FLOW, Flow
from fingerpost.worker.engine.inference import warm_up
from fingerpost.worker.engine.latency_per_cost import LatencyPerCost
from fingerpost.worker.engine.outcome import Outcome, milliseconds
from fingerpost.worker.engine.threads import BatchResult, ModelThreads
from fingerpost.worker.images import ImageConfig, prepare
from fingerpost.worker.telemetry.request import current_request
from fingerpost.worker.threads import decode_pool

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor

    from numpy.typing import NDArray

    from fingerpost.worker.backends.base import Backend, Item
    from fingerpost.worker.engine.batching.batch import Pending
    from fingerpost.worker.engine.batching.batcher import Batcher
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["Engine"]

# From this many seconds on an image is admitted without estimates while no more than one batch
# waits: they could refuse it only for runs of 20 s, and do so when the image is submitted.
_LONG_S: Final = 60.0


class Engine:
    """Runs a backend without ever blocking the event loop; `aclose` closes it.

    Three parties share a `Batcher` under a lock, which each holds for microseconds: the event loop
    submits and cancels; `decode_threads` at most decode images (Pillow releases the interpreter
    lock); a single thread runs the model, so that a backend need not be thread-safe, or one for
    each of its concurrent batches. It takes its next batch by itself, so the model does not wait
    for a loop that is busy with bodies, which is called once a batch. An image that needs no
    decoding changes threads once.

    Args:
        backend: the model; closed by `aclose`.
        images: which images are refused before they are decoded.
        metrics: counts batches, and times by `model`.
        batching: how images are gathered. A backend with a fixed batch overrides its sizes.
        decoders: a pool shared with other engines; by default one of its own.
        decode_threads: most images decoded at once for this engine.
        model: the model's name in the metrics.

    Attributes:
        signature: of a SavedModel, where it is not the usual one.
        inside: images that were submitted and whose outcome is not with their caller yet.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        images: ImageConfig,
        metrics: WorkerMetrics,
        batching: BatchingConfig | None = None,
        decoders: ThreadPoolExecutor | None = None,
        decode_threads: int = 1,
        model: str = "",
    ) -> None:
        self._backend = backend
        self.signature: str = getattr(backend, "signature", "")
        self._input = backend.input
        self._images = images
        self._metrics = metrics.of(model)
        config = batching or BatchingConfig()
        if self._input.batch is not None:
            config = replace(config, max_batch=self._input.batch, sizes=(self._input.batch,))
        if self._input.inline:
            config = replace(config, max_wait_s=0.0)  # nothing would wake the loop
        self._config = config
        self._short_queue = min(config.max_batch, config.max_queue - 1) * (config.latency_s is None)
        self.inside = 0
        batcher: Batcher[Job] = new_batcher(backend, config, max_preparing=decode_threads)
        self._batcher = batcher
        self._lock = threading.Lock()
        self._decode_threads = decode_threads
        self._own_decoders = decoders is None
        self._decoders = decoders or decode_pool(decode_threads)
        self._decoding = Decoding(self._batcher, self._lock, self._decoders, ready=self._decoded)
        self._model = ModelThreads(
            backend,
            config,
            self._batcher,
            self._lock,
            on_result=self._on_result,
            on_dropped=_on_dropped,
        )
        self._waking = False
        self._closed = False
        self._latency = LatencyPerCost()

    @property
    def latency_per_cost_s(self) -> float:
        """Seconds for a megabyte of image that is here alone; 0 before the first image."""
        return self._latency.s_per_mb

    @property
    def platform(self) -> str:
        """Framework and format of the model: see `Backend.platform`."""
        return self._backend.platform

    @property
    def queued_cost(self) -> float:
        """Megabytes of images that wait for a decoder or the model."""
        return self._batcher.queued_cost

    @property
    def queued(self) -> int:
        """Images that wait for a decoder, are being decoded, or wait for the model."""
        return len(self._batcher)

    @property
    def ready(self) -> int:
        """Images that wait for the model alone."""
        return self._batcher.ready

    def crowded(self, flow: Flow = DEFAULT_FLOW) -> bool:
        """Whether a quarter of the queue's places, or more, would be served before a new image."""
        return 4 * self._batcher.ahead(flow) >= self._config.max_queue

    @property
    def slots(self) -> int:
        """How many images it works on at once, as measured: see `BatchSizes.capacity`."""
        return max(1, round(self._batcher.sizes.capacity))

    def forecast(self, ahead: int, rank: int | None = None) -> tuple[float, float]:
        """See `Batcher.forecast`; `ahead` images are still being uploaded."""
        with self._lock:
            return self._batcher.forecast(time.monotonic(), ahead, rank)

    def tenants(self) -> set[str]:
        """Whose images wait."""
        with self._lock:
            return self._batcher.order.tenants()

    def expected_s(self, flow: Flow | None = None) -> float:
        """Seconds until an image that came now would be answered; 0 while too little is known."""
        with self._lock:
            return self._batcher.expected_s(time.monotonic(), flow=flow)

    @property
    def alone_limit_s(self) -> float:
        """See `BatchSizes.alone_limit_s`."""
        return self._batcher.sizes.alone_limit_s

    @property
    def abandoned(self) -> int:
        """Images that are still being decoded although their requests have ended."""
        return self._batcher.abandoned

    def decoding_since(self) -> list[float]:
        """When each image that is being decoded now was begun, on the monotonic clock."""
        return self._decoding.began()

    def running_s(self) -> float:
        """Seconds since the start of the oldest batch that runs; 0 while none does."""
        since = self._batcher.running_since
        return 0.0 if since is None else time.monotonic() - since

    def admit(self, left_s: float, flow: Flow = DEFAULT_FLOW) -> None:
        """Check by its remaining time whether an image that is still to come would be accepted.

        Args:
            left_s: seconds until the image's deadline.
            flow: whose it is.

        Raises:
            Overloaded, DeadlineExceeded: see `Batcher.admit`.
        """
        if left_s >= _LONG_S and len(self._batcher) <= self._short_queue:
            return
        now = time.monotonic()
        with self._lock:
            self._batcher.admit(now, now + left_s, flow)

    def warm_up(self) -> int:
        """Run real inferences, blocking; return the number of classes. See `inference.warm_up`."""
        run = partial(warm_up, self._backend, self._config.max_batch, self._config.sizes)
        return self._model.call(partial(run, self._batcher.sizes.measured))

    async def classify(
        self,
        data: bytes | bytearray | memoryview,
        *,
        deadline: float | None = None,
        alone: bool = False,
        flow: Flow = DEFAULT_FLOW,
    ) -> Outcome:
        """Decode an image, wait for a batch, and run it; `batching` states the longest wait.

        Args:
            data: an encoded image, not to be changed meanwhile.
            deadline: the latest time, by the loop's clock, at which the answer is of use.
            alone: for `alone_limit_s`, nothing else is decoded or run beside it; one at a time.
            flow: its tenant and class.

        Raises:
            ImageError: the image cannot be decoded.
            Overloaded: the queue is full, or its place went to a tenant with less than its share.
            DeadlineExceeded: the deadline cannot be met; the model has not run the image.
            ModelFailed: the model raised on this image, or gave it scores that are not finite.
            Draining: the engine is closed.
        """
        if self._input.encoded and not self._input.check_encoded:
            if not data:
                raise EmptyImage("the body is empty: send the image's bytes")
            item = bytes(data)  # which does not copy bytes
            return await self._run(len(data) / 1e6, deadline, flow, item=item, alone=alone)
        make = partial(prepare, data, self._input, self._images)
        return await self._run(len(data) / 1e6, deadline, flow, make=make, alone=alone)

    async def infer(
        self, image: NDArray[Any], *, deadline: float | None = None, flow: Flow = DEFAULT_FLOW
    ) -> Outcome:
        """Run an image that is an array already.

        Args:
            image: uint8 `[height, width, channels]` in 0..255, RGB, of any size, which is resized
                to the model's; or float32 `input.tensor_shape`, which goes in as it is.
            deadline, flow: see `classify`.

        Raises:
            InvalidRequest: an array of another shape or type, or float values for which the model
                gives scores that are not finite.
            Overloaded, DeadlineExceeded, ModelFailed, Draining: see `classify`.
        """
        make = preparation(image, self._input, self._images)
        return await self._run(image.nbytes / 1e6, deadline, flow, make=make, item=image)

    async def aclose(self) -> None:
        """Cancel what waits, let running batches end, and close the backend and the threads."""
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
        flow: Flow,
        *,
        make: Callable[[], Item] | None = None,
        item: Item = b"",
        alone: bool = False,
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None
        now = time.monotonic()  # what asyncio's loops go by, too
        with self._lock:
            if self._closed:
                raise Draining("this model is being unloaded: try again")
            job = Job(loop.create_future(), now, cost, make, item)
            pending = self._batcher.submit(
                job,
                cost=cost,
                now=now,
                deadline=math.inf if deadline is None else deadline,
                prepared=make is None,
                flow=flow,
            )
            if self._batcher.pushed_out:
                self._refuse_pushed_out(now)
            if alone:
                self._batcher.alone = pending
                timer = loop.call_later(self.alone_limit_s, self._end_alone, pending)
        if make is not None:
            self._decoding.start_next()
        elif not self._waking:
            # At the end of this turn of the loop, so that all images of the turn are one batch.
            self._waking = True
            loop.call_soon(self._wake)
        self.inside += 1
        try:
            outcome = await job.future
        except asyncio.CancelledError:
            with self._lock:
                self._batcher.cancel(pending)
            raise
        finally:
            self.inside -= 1
            if timer is not None:
                timer.cancel()
                self._end_alone(pending)
            del job, pending  # whose future holds the error, whose traceback holds these names
        record = current_request()
        if record is not None:
            record.image(now, outcome.timings)
        return outcome

    def _refuse_pushed_out(self, now: float) -> None:
        while self._batcher.pushed_out:
            pending = self._batcher.pushed_out.pop()
            pending.item.fail(
                Overloaded(
                    f"the {self._config.max_queue} places here (max_queue) are taken, and that of "
                    f"this image of tenant {pending.flow.tenant!r} went to one with less than its "
                    "share, or of a class that goes first: use another worker, or try again later",
                    retry_after_s=self._batcher.expected_s(now, flow=pending.flow) or None,
                )
            )

    def _wake(self) -> None:
        self._waking = False
        if not self._input.inline:
            self._model.wake()
            return
        for result in self._model.run_inline():
            self._finish(result)

    def _end_alone(self, pending: Pending[Job]) -> None:
        """Go on with the others, unless that was done already."""
        with self._lock:
            if self._batcher.alone is pending:
                self._batcher.alone = None
        for _ in range(self._decode_threads):
            self._decoding.start_next()
        self._wake()

    def _close(self) -> None:
        self._model.close()
        if self._own_decoders:
            self._decoders.shutdown(wait=True)

    # Called in other threads.

    def _decoded(self, job: Job) -> None:
        if self._input.inline:
            job.call_in_loop(self._wake)
        else:
            self._model.wake()

    def _on_result(self, result: BatchResult) -> None:
        result.jobs[0].call_in_loop(self._finish, result)

    # Called in the event loop.

    def _finish(self, result: BatchResult) -> None:
        """Hand a batch's outcomes to their callers."""
        metrics = self._metrics
        inference_s = result.ended - result.began
        inference_ms = milliseconds(inference_s)
        alone_s = inference_s * self._batcher.sizes.alone_part(len(result.jobs))
        self._latency.observe(result.jobs, alone_s, result.ended)
        for job, outcome in zip(result.jobs, result.outcomes, strict=True):
            queue_s = max(0.0, result.began - job.arrived - job.decode_s)
            if job.decode_s:
                metrics.decode_seconds.observe(job.decode_s)
            metrics.queue_seconds.observe(queue_s)
            if job.future.done():
                continue
            if isinstance(outcome, FingerpostError):
                job.future.set_exception(outcome)
                continue
            timings = TimingsMs(
                decode=milliseconds(job.decode_s) if job.decode_s else 0.0,
                queue=milliseconds(queue_s),
                inference=inference_ms,
            )
            job.future.set_result(Outcome(outcome, timings))
        if self._batcher.alone is not None:
            self._decoding.start_next()  # it may have waited for this batch
        metrics.batch_size_images.observe(len(result.jobs))
        metrics.inference_seconds.observe(inference_s)


def _on_dropped(job: Job) -> None:
    job.fail(DeadlineExceeded("the deadline cannot be met: the image was not run"))
