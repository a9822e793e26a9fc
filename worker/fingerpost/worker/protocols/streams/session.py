"""A stream of images, each answered when it is done; not tied to a protocol.

An image counts as a request in flight while the engine has it. An open stream without images does
not count as load, but a drain waits for its end.

Where leases are required, no image is read after the end of the lease that the stream was opened
with, and those that were read are answered: the client opens another stream with a new lease.
Rejected: a message that renews the lease, which every client would have to know.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from fingerpost.client.frames import Ended
from fingerpost.client.wire import ErrorBody
from fingerpost.errors import DeadlineExceeded, FingerpostError, ImageTooLarge, LeaseExpired
from fingerpost.registry import WorkerState
from fingerpost.registry.http.app import internal_error
from fingerpost.worker.models.tasks import Task
from fingerpost.worker.protocols.classify import image_answer, wrong_task
from fingerpost.worker.protocols.stream_result import task_result
from fingerpost.worker.serving.admission import DEFAULT_DEADLINE_S

if TYPE_CHECKING:
    from fingerpost.client.wire import ImageAnswer
    from fingerpost.worker.config import WorkerConfig
    from fingerpost.worker.protocols.streams.link import StreamImage, StreamLink, StreamOrder
    from fingerpost.worker.repository.manager import ModelManager
    from fingerpost.worker.serving.admission import Admission
    from fingerpost.worker.telemetry.metrics import WorkerMetrics

__all__ = ["StreamSession"]

logger = logging.getLogger(__name__)


class StreamSession:
    """One open stream.

    `_scope` ends its reading from outside: when the worker drains, when the stream's deadline
    passes, or when the connection is lost.

    Args:
        link: the connection of its client.
        order: what it was opened for.
        manager, admission, config, metrics: of the worker.
    """

    def __init__(
        self,
        link: StreamLink,
        order: StreamOrder,
        *,
        manager: ModelManager,
        admission: Admission,
        config: WorkerConfig,
        metrics: WorkerMetrics,
    ) -> None:
        self._link = link
        self._order = order
        self._manager = manager
        self._admission = admission
        self._classified = metrics.of(order.reference.model).images
        self._window = config.streams.window
        self._max_bytes = config.requests.max_bytes
        self._max_image_bytes = config.images.max_bytes
        self._loop = asyncio.get_running_loop()
        left_s, lease_s = order.left_s, order.lease_left_s
        self._by_lease = lease_s < (inf if left_s is None else left_s)
        self._scope = asyncio.timeout(lease_s if self._by_lease else left_s)
        self._images: dict[StreamImage, asyncio.Task[None]] = {}
        self._bytes = 0
        self._room = asyncio.Event()
        self._taken = 0
        self._reading = False
        self._stopped = False

    async def run(self) -> None:
        """Read and answer images until one side ends the stream, or its connection is lost."""
        link = self._link
        try:
            with self._admission.streaming(self.stop):
                await link.opened(self._window)
                ended = await self._take_all()
                if self._images and not link.lost:
                    await asyncio.wait(self._images.values())
                await link.ended(ended)
        finally:
            tasks = list(self._images.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Stop reading; what was read is answered."""
        self._stopped = True
        if self._reading and not self._scope.expired():
            self._scope.reschedule(self._loop.time())

    def cancel(self, image: StreamImage) -> bool:
        """End the work on an image, which gets no answer; whether it had begun."""
        task = self._images.get(image)
        return task is not None and (task.cancel() or True)

    async def _take_all(self) -> Ended:
        try:
            async with self._scope:
                self._reading = True
                try:
                    while not self._stopped and (image := await self._next()) is not None:
                        self._start(image)
                finally:
                    self._reading = False
            if not self._stopped:
                return Ended(taken=self._taken, reason="done")
        except TimeoutError:
            pass
        except FingerpostError as error:
            return self._failed(error)
        if self._admission.state is WorkerState.DRAINING:
            return Ended(taken=self._taken, reason="draining")
        if self._by_lease and self._link.lost is None:
            return self._failed(
                LeaseExpired("the stream's lease has ended: open another stream with a new one")
            )
        return self._failed(DeadlineExceeded("the stream's deadline has passed"))

    def _failed(self, error: FingerpostError) -> Ended:
        return Ended(taken=self._taken, reason="failed", error=ErrorBody.of(error))

    async def _next(self) -> StreamImage | None:
        """The next image, once there is room for it; None at the client's end of the stream."""
        while len(self._images) >= self._window or self._bytes >= self._max_bytes:
            self._room.clear()
            await self._room.wait()
        return await self._link.next(lambda: len(self._images))

    def _start(self, image: StreamImage) -> None:
        size = len(image.body)
        task = asyncio.create_task(self._answer(self._taken, image))
        self._taken += 1
        self._bytes += size
        self._images[image] = task

        def done(_: object) -> None:
            del self._images[image]
            self._bytes -= size
            self._link.done(image)
            self._room.set()

        task.add_done_callback(done)

    async def _answer(self, seq: int, image: StreamImage) -> None:
        """Answer one image; it keeps its place in the window until its answer is written."""
        link = self._link
        result: ImageAnswer | FingerpostError
        try:
            result = await link.observed(image, partial(self._run, image, self._loop.time()))
        except FingerpostError as error:
            result = error
        except Exception:
            logger.exception("image %d of a stream failed", seq)
            result = internal_error()
        try:
            await link.answer(seq, image, result)
        finally:
            del result  # an error's traceback has this frame: a cycle

    async def _run(self, image: StreamImage, arrived: float) -> ImageAnswer:
        """The answer of the model.

        Raises:
            FingerpostError: why there is none.
        """
        order, body = self._order, image.body
        if image.problem is not None:
            problem, image.problem = image.problem, None
            try:
                raise problem
            finally:
                del problem  # its traceback has this frame: a cycle
        self._check_size(image)
        left_s = DEFAULT_DEADLINE_S if image.deadline_ms is None else image.deadline_ms / 1000
        deadline = arrived + min(DEFAULT_DEADLINE_S, left_s)
        flow, top = order.flow, order.top
        try:
            with self._manager.acquire(order.reference) as served:
                image.served = served
                classifies = served.task is Task.CLASSIFICATION
                if order.classify_only and not classifies:
                    raise wrong_task(served)
                async with (
                    self._link.admitted(image, served) as alone,
                    asyncio.timeout_at(deadline),
                ):
                    if order.infer is not None:
                        found = await order.infer(image, served, deadline, alone)
                    elif classifies:
                        outcome = await served.engine.classify(
                            body, deadline=deadline, alone=alone, flow=flow
                        )
                        found = image_answer(image.name, outcome, served.labels, top)
                    else:
                        found = await task_result(served, image.name, body, deadline, flow, top)
        except TimeoutError:
            raise DeadlineExceeded("the image's deadline has passed") from None
        self._classified.inc()
        return found

    def _check_size(self, image: StreamImage) -> None:
        if image.oversize:
            raise ImageTooLarge(
                f"the image has {image.oversize:,} bytes, over the limit of "
                f"{self._max_image_bytes:,}: send a smaller one"
            )
        most = self._order.grant.max_body_bytes
        if most is not None and len(image.body) > most:
            raise ImageTooLarge(
                f"the image has {len(image.body):,} bytes, over the limit of {most:,} of this "
                "lease: send a smaller one"
            )
